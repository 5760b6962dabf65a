// Generations: which one answers, a switch to another, and back.

import { ask } from "./api.js";
import { doing, moment } from "./doing.js";
import { at, make, whole } from "./page.js";

async function switchTo(one) {
  const path = `/admin/generations/${one.generation}/activate`;
  try {
    await ask(path, {});
  } catch (error) {
    if (!confirm(`${error.message}\n\nSwitch now all the same?`)) throw error;
    await ask(path, { now: true });
  }
  return `Generation ${one.generation} answers.`;
}

async function drop(one) {
  if (!confirm(`Delete generation ${one.generation} for good?`)) return "";
  await ask(`/admin/generations/${one.generation}`, undefined, "DELETE");
  return `Generation ${one.generation} is being deleted.`;
}

function generationRow(one, look) {
  const settings = Object.entries(one.settings).flatMap(([group, values]) =>
    Object.entries(values).map(([name, value]) => `${group}.${name} = ${JSON.stringify(value)}`));
  const buttons = make("td");
  if (one.state === "ready") {
    const name = `Switch to generation ${one.generation}`;
    buttons.append(doing("Switch", name, false, look, () => switchTo(one)));
  }
  if (one.state !== "live") {
    buttons.append(doing("Drop", `Drop generation ${one.generation}`, true, look, () => drop(one)));
  }
  return make(
    "tr",
    {
      "data-generation": one.generation,
      title: `from ${one.origin}, begun ${moment.format(new Date(one.created))}\n${settings.join("\n")}`,
    },
    make("th", { text: String(one.generation), scope: "row" }),
    make("td", { text: one.state, "data-state": one.state }),
    make("td", { text: whole.format(one.events) }),
    make("td", { text: one.latest ? moment.format(new Date(one.latest)) : "–" }),
    buttons,
  );
}

export function showGenerations(generations, look) {
  const body = at("generations").tBodies[0];
  const told = JSON.stringify(generations);
  if (body.dataset.told === told) return;
  body.dataset.told = told;
  body.replaceChildren(...generations.map((one) => generationRow(one, look)));
}
