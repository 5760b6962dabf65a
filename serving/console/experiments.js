// The console's experiments: what each variant has led to, and what that says.

import { ask, Problem } from "./api.js";
import { at, whole } from "./page.js";

const LOOK_MS = 3000;
const SVG = "http://www.w3.org/2000/svg";
const MEASURES = [
  ["click_through", "Click-through", "clicked"],
  ["conversion", "Conversion", "bought"],
];

const percent = (share) => (100 * share).toFixed(1);
const signed = (share) => `${share < 0 ? "−" : "+"}${percent(Math.abs(share))}`;

function made(kind, text = "", name = "") {
  const element = document.createElement(kind);
  element.textContent = text;
  if (name) element.className = name;
  return element;
}

function drawn(kind, attributes) {
  const element = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// The interval as a bar and what was seen as a mark, on a scale that all variants share.
function picture(measured, top) {
  const place = (share) => (100 * share / top).toFixed(2);
  const svg = drawn("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" });
  svg.append(drawn("line", { class: "scale", x1: 0, y1: 5, x2: 100, y2: 5 }));
  svg.append(drawn("line", { class: "range", x1: place(measured.low), y1: 5, x2: place(measured.high), y2: 5 }));
  svg.append(drawn("line", { class: "seen", x1: place(measured.rate), y1: 0, x2: place(measured.rate), y2: 10 }));
  return svg;
}

function measure(row, [name, title, did], top) {
  const measured = row[name];
  const compared = row[`${name}_compared`];
  const cell = made("dd", "", "measure");
  if (measured.rate === null) {
    cell.append(made("p", "–"));
    return [made("dt", title), cell];
  }
  const line = made("p", "", "share");
  line.append(made("strong", `${percent(measured.rate)} %`));
  line.append(made("span", ` ${percent(measured.low)} to ${percent(measured.high)}`, "hint"));
  line.title = `${whole.format(measured.users)} users ${did}`;
  cell.append(line, picture(measured, top));
  if (compared && compared.difference !== null) {
    const against = made("p", "", "against");
    against.dataset.word = compared.word;
    against.append(made("span", `${signed(compared.difference)} points`));
    against.append(made("span", ` ${signed(compared.low)} to ${signed(compared.high)}`, "hint"));
    cell.append(against);
  }
  return [made("dt", title), cell];
}

function variant(row, tops) {
  const item = made("li", "", "variant");
  item.dataset.variant = row.variant;
  const head = made("p", "", "variant-name");
  head.append(made("strong", row.variant));
  head.append(made("span", `${whole.format(row.users)} users, ${whole.format(row.answers)} answers`, "hint"));
  const counts = made("p", `${whole.format(row.clicks)} clicks, ${whole.format(row.purchases)} purchases`, "hint");
  const measures = made("dl");
  for (const one of MEASURES) measures.append(...measure(row, one, tops[one[0]]));
  item.append(head, counts, measures);
  return item;
}

function summary(one) {
  const line = made("summary");
  line.append(made("strong", one.experiment));
  const state = made("span", one.state, "state");
  state.dataset.state = one.state;
  line.append(state);
  const users = one.variants.reduce((sum, row) => sum + row.users, 0);
  line.append(made("span", `${whole.format(users)} users`, "hint"));
  return line;
}

function fill(box, one) {
  box.dataset.told = JSON.stringify(one);
  const tops = {};
  for (const [name] of MEASURES) tops[name] = Math.max(0.001, ...one.variants.map((row) => row.users ? row[name].high : 0));
  const about = [];
  if (one.share !== null && one.share < 1) about.push(`${percent(one.share)} % of the users take part`);
  if (one.scenarios !== null) about.push(`in ${one.scenarios.join(", ")}`);
  const list = made("ol", "", "variants");
  list.append(...one.variants.map((row) => variant(row, tops)));
  const verdict = made("p", "", "verdict");
  verdict.append(...one.verdict.split(/(?<=\.) /).map((sentence) => made("span", `${sentence} `)));
  const parts = [summary(one), verdict];
  if (about.length) parts.push(made("p", about.join("; "), "hint"));
  const focused = box.querySelector("summary") === document.activeElement;
  box.replaceChildren(...parts, list);
  if (focused) box.querySelector("summary").focus();
}

// What is open stays open, and what has not changed is left alone.
function show(experiments) {
  const list = at("experiments-list");
  const known = new Map([...list.children].map((box) => [box.dataset.experiment, box]));
  const boxes = experiments.map((one) => {
    let box = known.get(one.experiment);
    if (box === undefined) {
      box = document.createElement("details");
      box.dataset.experiment = one.experiment;
      box.open = one.state === "running";
    }
    if (box.dataset.told !== JSON.stringify(one)) fill(box, one);
    return box;
  });
  if (boxes.length !== list.children.length || boxes.some((box, place) => box !== list.children[place])) {
    list.replaceChildren(...boxes);
  }
  at("experiments").hidden = experiments.length === 0;
}

export async function showExperiments() {
  const problem = at("experiments-problem");
  try {
    show((await ask("/v1/experiments")).experiments);
    problem.hidden = true;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    problem.textContent = error.message;
    problem.hidden = false;
  }
}

export async function startExperiments() {
  await showExperiments();
  setTimeout(startExperiments, LOOK_MS);
}
