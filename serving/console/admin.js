// What the console has on the admin port alone: generations, and dead letters.

import { ask } from "./api.js";
import { say } from "./doing.js";
import { showGenerations } from "./generations.js";
import { showLetters } from "./letters.js";
import { at } from "./page.js";

const LETTERS = 20;
const LOOK_MS = 3000;

async function look() {
  try {
    const [{ generations }, { letters, kept }] = await Promise.all([
      ask("/admin/generations"), ask(`/admin/dead?n=${LETTERS}`),
    ]);
    showGenerations(generations, look);
    showLetters(letters, kept, look);
  } catch (error) {
    say(error.message, true);
  }
}

if (document.body.dataset.admin === "yes") {
  at("admin").hidden = false;
  await look();
  setInterval(look, LOOK_MS);
}
