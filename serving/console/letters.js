// Dead letters: what could not be counted, why, and a way to send it again.

import { ask } from "./api.js";
import { doing, moment } from "./doing.js";
import { at, make, whole } from "./page.js";

async function send(one, text) {
  // What was not changed goes as it was, byte by byte.
  const changed = text.value !== (one.value ?? "");
  let event;
  if (changed) {
    try {
      event = JSON.parse(text.value);
    } catch (error) {
      throw new Error(`This is not JSON: ${error.message}`);
    }
  }
  const path = `/admin/dead/${one.partition}/${one.offset}/resend`;
  const { topic } = await ask(path, changed ? { event } : {});
  text.value = one.value ?? "";
  return `Sent to ${topic} again${changed ? ", mended" : ""}.`;
}

function letterRow(one, look) {
  const name = `${one.partition}-${one.offset}`;
  const reason = make("strong", { text: one.field ? `${one.reason}: ${one.field}` : one.reason });
  const from = `${moment.format(new Date(one.timestamp))}, ${one.source.topic} ${one.source.partition}-${one.source.offset}`;
  const text = make("textarea", { rows: 2, "aria-label": `Value of dead letter ${name}` });
  text.value = one.value ?? "";
  text.spellcheck = false;
  return make(
    "li",
    { "data-letter": name },
    make("p", {}, reason, " ", make("span", { text: from, className: "hint" })),
    make("p", { text: one.message, className: "hint" }),
    text,
    doing("Send again", `Send dead letter ${name} again`, false, look, () => send(one, text)),
  );
}

// Rows that are there stay: somebody may be writing in one of them.
export function showLetters(letters, kept, look) {
  const list = at("letters");
  const known = new Map([...list.children].map((row) => [row.dataset.letter, row]));
  const rows = letters.map((one) => known.get(`${one.partition}-${one.offset}`) ?? letterRow(one, look));
  if (rows.length !== list.children.length || rows.some((row, place) => row !== list.children[place])) {
    const focused = document.activeElement;
    list.replaceChildren(...rows);
    if (list.contains(focused)) focused.focus();
  }
  at("letters-kept").textContent = kept ? `${whole.format(kept)} kept` : "";
  at("letters-empty").hidden = letters.length > 0;
}
