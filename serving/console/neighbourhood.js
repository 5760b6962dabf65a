// An item's neighbourhood as a picture: the item in the middle, its neighbours around it, the
// nearer the more they weigh. The same stands beside it as a list, for who does not see it.

import { ask, Problem } from "./api.js";
import { nameOf } from "./items.js";
import { at, make, percent } from "./page.js";

const SVG = "http://www.w3.org/2000/svg";
const MOST = 12;
const MOST_NARROW = 8;
const NARROW = 520;
const PAST = 20;

const state = { item: null, past: [], answer: null, turn: 0 };

function draw(kind, attributes, text = "") {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

function shortened(text, most) {
  const letters = [...text];
  return letters.length > most ? `${letters.slice(0, most - 1).join("").trimEnd()}…` : text;
}

function node(item, x, y, radius, letters) {
  const made = draw("g", { transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` });
  const title = draw("title", {}, nameOf(item));
  const label = draw("text", { y: radius + 15 }, shortened(nameOf(item), letters));
  made.append(title, draw("circle", { r: radius }), label);
  return made;
}

function neighbour(item, share, x, y, letters) {
  const made = node(item, x, y, 7 + 9 * share, letters);
  made.setAttribute("class", "neighbour");
  made.setAttribute("role", "button");
  made.setAttribute("tabindex", "0");
  made.setAttribute("aria-label", `${nameOf(item)}, ${percent(share)} % of the heaviest`);
  made.dataset.item = item.item_id;
  made.addEventListener("click", () => move(item));
  made.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    move(item);
  });
  return made;
}

// Neighbours stand on an ellipse, clockwise from the top, the heaviest first and nearest.
function picture(items) {
  const width = Math.max(280, at("neighbours-picture").clientWidth);
  const narrow = width < NARROW;
  const height = narrow ? 440 : 470;
  const shown = items.slice(0, narrow ? MOST_NARROW : MOST);
  const letters = narrow ? 11 : 18;
  const top = Math.max(...shown.map((item) => item.score), Number.MIN_VALUE);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group" });
  svg.setAttribute("aria-label", `Neighbours of ${nameOf(state.item)}`);
  const [x, y] = [width / 2, height / 2 - 8];
  const nodes = shown.map((item, index) => {
    const share = item.score / top;
    const angle = (2 * Math.PI * index) / shown.length - Math.PI / 2;
    // Where there are many, every other one stands further out, so that labels have room.
    const away = narrow ? 0.8 + 0.2 * (1 - share) : 0.5 + 0.2 * (1 - share) + (index % 2 === 0 ? 0.28 : 0);
    const ax = x + Math.cos(angle) * away * (width / 2 - (narrow ? 40 : 80));
    const ay = y + Math.sin(angle) * away * (height / 2 - 30);
    const line = { x1: x, y1: y, x2: ax, y2: ay, "stroke-width": (1 + 6 * share ** 2).toFixed(1) };
    svg.append(draw("line", line));
    return neighbour(item, share, ax, ay, letters);
  });
  const middle = node(state.item, x, y, 20, letters);
  middle.setAttribute("class", "middle");
  svg.append(middle, ...nodes);
  at("neighbours-picture").replaceChildren(svg);
}

function list(items) {
  const top = Math.max(...items.map((item) => item.score), Number.MIN_VALUE);
  at("neighbours").replaceChildren(
    ...items.map((item) => {
      const share = make("span", { text: `${percent(item.score / top)} %`, className: "share" });
      return make("li", {}, make("span", { text: nameOf(item), className: "name" }), share);
    }),
  );
}

function show() {
  const { items, degraded } = state.answer;
  at("neighbourhood-title").textContent = `Near ${nameOf(state.item)}`;
  at("neighbourhood-said").textContent = items.length === 0
    ? "Nothing is known to stand beside it yet."
    : degraded ? "The store does not answer: this is what was held."
    : `${items.length} neighbours, the heaviest ${nameOf(items[0])}.`;
  at("neighbourhood-back").hidden = state.past.length === 0;
  picture(items);
  list(items);
}

const relation = () => document.querySelector("input[name=relation]:checked").value;

async function read() {
  const mine = ++state.turn;
  const { item } = state;
  const path = `/v1/items/${encodeURIComponent(item.item_id)}/similar?n=${MOST}&relation=${relation()}`;
  try {
    const answer = await ask(path);
    if (mine !== state.turn) return;
    state.answer = answer;
    show();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (mine === state.turn) at("neighbourhood-said").textContent = error.message;
  }
}

async function open(item) {
  state.item = item;
  at("neighbourhood").hidden = false;
  await read();
}

async function move(item) {
  state.past = [...state.past, state.item].slice(-PAST);
  await open(item);
  at("neighbourhood-title").focus({ preventScroll: true });
}

function close() {
  state.turn += 1;
  state.past = [];
  at("neighbourhood").hidden = true;
  state.opener?.focus();
}

// Returns what opens the neighbourhood of an item; `choose` adds one to the session.
export function startNeighbourhood(choose) {
  at("neighbourhood-choose").addEventListener("click", () => choose(state.item, 0));
  at("neighbourhood-back").addEventListener("click", async () => {
    const item = state.past.pop();
    await open(item);
    at("neighbourhood-title").focus({ preventScroll: true });
  });
  at("neighbourhood-close").addEventListener("click", close);
  at("neighbourhood").addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
  });
  for (const input of document.querySelectorAll("input[name=relation]")) {
    input.addEventListener("change", read);
  }
  let width = 0;
  new ResizeObserver(([entry]) => {
    const now = Math.round(entry.contentRect.width);
    if (now === width) return;
    width = now;
    if (state.answer && now > 0) picture(state.answer.items);
  }).observe(at("neighbours-picture"));
  return async (item) => {
    state.past = [];
    state.opener = document.activeElement;
    await open(item);
    at("neighbourhood").scrollIntoView({ block: "start", behavior: "smooth" });
    at("neighbourhood-title").focus({ preventScroll: true });
  };
}
