// Lists of items: what they are called, how much they weigh, why they are there, what is near them.

import { at, button, make, percent } from "./page.js";

const REASONS = 5;

export const nameOf = (item) => item.title ?? item.item_id;

function itemRow(item) {
  const row = make("li", { "data-item": item.item_id });
  const chosen = make("button", { className: "item", type: "button" });
  for (const part of ["place", "name", "weight"]) chosen.append(make("span", { className: part }));
  const why = button("why", "why", () => openReasons(row, row.lastChild.hidden));
  const near = make("button", { text: "near", className: "near", type: "button" });
  row.append(chosen, why, near, make("dl", { className: "reasons" }));
  openReasons(row, false);
  return row;
}

function openReasons(row, open) {
  row.children[1].setAttribute("aria-expanded", String(open));
  row.lastChild.hidden = !open;
}

function fillRow(row, item, place, share, actions) {
  const [chosen, , near] = row.children;
  const [number, name, weight] = chosen.children;
  number.textContent = String(place);
  name.textContent = nameOf(item);
  chosen.title = item.title ? `${item.title} (${item.item_id})` : item.item_id;
  if (item.title) name.append(make("span", { text: item.item_id, className: "id" }));
  if (item.available === false) name.append(make("span", { text: "not available", className: "id" }));
  weight.style.setProperty("--share", share.toFixed(3));
  chosen.onclick = () => actions.choose(item, place);
  near.setAttribute("aria-label", `what is near ${nameOf(item)}`);
  near.onclick = () => actions.near(item);
  fillReasons(row, item);
}

// What each item of the session, and what everybody likes, adds to the score.
function fillReasons(row, item) {
  const [, why, , reasons] = row.children;
  const { contributions, trending, factor } = item.explanation ?? { contributions: [], trending: 0, factor: 0 };
  why.hidden = contributions.length === 0 && trending === 0;
  if (why.hidden) {
    openReasons(row, false);
    return;
  }
  why.setAttribute("aria-label", `why ${nameOf(item)}`);
  const parts = contributions
    .map((one) => ({ name: nameOf(one), together: factor * one.co_occurrence, again: factor * one.repeat }))
    .sort((a, b) => b.together + b.again - a.together - a.again);
  const rest = parts.splice(REASONS);
  if (rest.length > 0) {
    const sum = (kind) => rest.reduce((before, one) => before + one[kind], 0);
    parts.push({ name: `${rest.length} more`, together: sum("together"), again: sum("again") });
  }
  const lines = parts.map((one) => [one.name, one.together + one.again, kinds(one)]);
  if (trending !== 0) lines.push(["Everybody", trending, "trending now"]);
  reasons.replaceChildren(...lines.map(([name, value, kind]) => reason(name, item.score === 0 ? 0 : value / item.score, kind)));
}

function kinds({ together, again }) {
  if (again === 0) return "seen together";
  if (together === 0) return "seen again";
  const share = Math.round((100 * again) / (together + again));
  return `together ${100 - share} %, again ${share} %`;
}

function reason(name, share, kind) {
  const value = make("dd", { text: `${percent(share)} %` });
  value.style.setProperty("--share", Math.min(1, Math.max(0, share)).toFixed(3));
  return make("div", {}, make("dt", { text: name }), make("dd", { text: kind, className: "kind" }), value);
}

// `actions` are `choose(item, place)` and `near(item)`; `weigh` says what bars show. Rows are kept
// by item, so that focus and scroll survive an update.
export function showItems(list, items, actions, weigh = (item) => item.score) {
  const focused = document.activeElement;
  const known = new Map([...list.children].map((row) => [row.dataset.item, row]));
  const top = Math.max(...items.map(weigh), Number.MIN_VALUE);
  const rows = items.map((item, index) => {
    const row = known.get(item.item_id) ?? itemRow(item);
    row.classList.toggle("new", known.size > 0 && !known.has(item.item_id));
    fillRow(row, item, index + 1, weigh(item) / top, actions);
    return row;
  });
  list.replaceChildren(...rows);
  if (list.contains(focused)) focused.focus({ preventScroll: true });
  at(`${list.id}-empty`).hidden = items.length > 0;
}
