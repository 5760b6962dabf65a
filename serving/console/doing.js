// What the parts of the admin port's console share: saying what became of it, one thing at a time.

import { at, make } from "./page.js";

export const moment = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "medium" });

export function say(text, bad = false) {
  const line = at("admin-said");
  line.textContent = text;
  line.dataset.bad = bad;
}

// A button that does one thing at a time and rests meanwhile; `done` is called after it.
export function doing(text, name, quiet, done, work) {
  const made = make("button", { text, type: "button", "aria-label": name });
  if (quiet) made.className = "quiet";
  made.addEventListener("click", async () => {
    made.disabled = true;
    try {
      const said = await work();
      if (said) say(said);
    } catch (error) {
      say(error.message, true);
    } finally {
      made.disabled = false;
      await done();
    }
  });
  return made;
}
