// Elements out of what they hold. Nothing here writes markup: all text goes through textContent.

/** An element with attributes (`onx` listens, true and false set and unset) and children or texts. */
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (typeof value === "boolean") made.toggleAttribute(key, value);
    else if (value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== ""));
  return made;
}

/** A <details> whose content is made when it is opened first: schemas may hold themselves. */
export function folded(summary, make, attributes = {}) {
  const made = el("details", attributes, summary);
  const fill = () => {
    if (!made.open || made.dataset.made) return;
    made.dataset.made = "yes";
    made.append(make());
  };
  made.addEventListener("toggle", fill);
  return made;
}

/** Text with what stands between backquotes as code. */
export function prose(text) {
  const parts = text.split("`");
  return el("p", {}, ...parts.map((part, at) => (at % 2 ? el("code", {}, part) : part)));
}
