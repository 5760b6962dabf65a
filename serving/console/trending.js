// What everybody likes now.

import { ask, Problem } from "./api.js";
import { showItems } from "./items.js";
import { at } from "./page.js";

const SHOWN = 12;
const AGAIN_MS = 5000;

const chosen = () => document.querySelector("input[name=window]:checked").value;

export async function showTrending(actions) {
  const window = chosen();
  try {
    const answer = await ask(`/v1/trending?n=${SHOWN}&window=${window}`);
    if (chosen() === window) showItems(at("trending"), answer.items, actions);
  } catch (error) {
    if (!(error instanceof Problem)) throw error; // what is wrong stands above the recommendations
  }
}

export function startTrending(actions) {
  for (const input of document.querySelectorAll("input[name=window]")) {
    input.addEventListener("change", () => showTrending(actions));
  }
  showTrending(actions);
  setInterval(() => showTrending(actions), AGAIN_MS);
}
