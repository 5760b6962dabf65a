// Items by their titles, as one types: what was found takes the place of what is trending.

import { ask, Problem } from "./api.js";
import { showItems } from "./items.js";
import { at } from "./page.js";

const SHOWN = 12;
const PAUSE_MS = 150;

let turn = 0;
let waiting = 0;

async function find(text, actions) {
  const mine = ++turn;
  let said = "";
  let items = [];
  try {
    const found = await ask(`/v1/items?search=${encodeURIComponent(text)}&n=${SHOWN}`);
    items = found.items;
    said = items.length === 0 ? "Nothing in the catalogue has these words."
      : found.complete ? `${items.length} found` : `the first ${items.length}`;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    said = error.message;
  }
  if (mine !== turn) return;
  show(true);
  showItems(at("found"), items, actions, (item) => item.events);
  at("found-said").textContent = said;
}

function show(found) {
  at("found").hidden = !found;
  at("found-said").hidden = !found;
  if (!found) at("found-empty").hidden = true;
  at("trending-part").hidden = found;
}

function look(actions) {
  clearTimeout(waiting);
  const text = at("search").value.trim();
  if (text) {
    waiting = setTimeout(() => find(text, actions), PAUSE_MS);
  } else {
    turn += 1;
    show(false);
  }
}

export function startSearch(actions) {
  at("search").addEventListener("input", () => look(actions));
  at("search").addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") at("found").querySelector(".item")?.focus();
    else if (event.key === "Escape") at("search").value = "";
    else return;
    event.preventDefault();
    if (event.key === "Escape") look(actions);
  });
  at("find").addEventListener("submit", (event) => event.preventDefault());
  look(actions);
}
