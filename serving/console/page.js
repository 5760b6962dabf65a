// What all parts of the console share: elements, numbers as text. Nothing here, or in what uses it,
// writes markup: all text goes through textContent.

export const at = (id) => document.getElementById(id);
export const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
export const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const count = (value) => (value >= 100_000 ? short : whole).format(value);

export const percent = (share) => (100 * share).toFixed(share < 0.0995 ? 1 : 0);

// An element with text, a class and attributes.
export function make(kind, { text = "", className = "", ...attributes } = {}, ...children) {
  const made = document.createElement(kind);
  if (text) made.textContent = text;
  if (className) made.className = className;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function button(text, className, onClick) {
  const made = make("button", { text, className, type: "button" });
  made.addEventListener("click", onClick);
  return made;
}
