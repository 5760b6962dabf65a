// One operation's request: a form with its parameters and body, the same as a curl command, and
// what the server answers to it.

import { el } from "./dom.js";
import { kind } from "./schema.js";

const MOST_SHOWN = 100_000;
const JSON_TYPE = "application/json";

const key = el("input", {
  id: "key",
  type: "password",
  placeholder: "none",
  autocomplete: "off",
  spellcheck: "false",
});

/** Where to say the API key that every request is sent with; it is kept nowhere. */
export const access = () =>
  el("div", { class: "entry access" }, el("label", { for: key.id }, "API key"), key);

function input(parameter, id) {
  const schema = parameter.schema;
  const options = schema.enum ?? (schema.type === "boolean" ? [true, false] : null);
  const value = parameter.example;
  if (options) {
    const made = el(
      "select",
      { id, name: parameter.name },
      parameter.required ? "" : el("option", { value: "" }, "not sent"),
      ...options.map((one) => el("option", { value: String(one) }, String(one))),
    );
    made.value = value === undefined ? (parameter.required ? String(options[0]) : "") : String(value);
    return made;
  }
  return el("input", {
    id,
    name: parameter.name,
    value: value === undefined ? "" : String(value),
    placeholder: schema.default === undefined ? "not sent" : `${schema.default}`,
    inputmode: schema.type === "integer" ? "numeric" : schema.type === "number" ? "decimal" : "text",
    maxlength: schema.maxLength === undefined ? undefined : String(2 * schema.maxLength),
    required: parameter.required,
    autocomplete: "off",
    autocapitalize: "off",
    spellcheck: "false",
  });
}

/** The form, the command and the answer of an operation. */
export function request(method, path, operation) {
  const parameters = operation.parameters ?? [];
  const name = operation.operationId;
  const fields = new Map(parameters.map((one) => [one, input(one, `${name}-${one.name}`)]));
  const [type, content] = Object.entries(operation.requestBody?.content ?? {})[0] ?? [];
  const body = content ? bodyFields(name, content) : null;
  const command = el("code");
  const copied = el("span", { role: "status", class: "hint" });
  const answer = el("div", { class: "answer", role: "status", "aria-live": "polite" });
  const send = el("button", { type: "submit" }, "Send");

  const asked = () => {
    let target = path;
    const query = new URLSearchParams();
    for (const [one, field] of fields) {
      if (one.in === "path") {
        target = target.replace(`{${one.name}}`, encodeURIComponent(field.value));
      } else if (field.value !== "") {
        query.append(one.name, field.value);
      }
    }
    const text = query.size ? `${target}?${query}` : target;
    const headers = {};
    if (key.value) headers["X-API-Key"] = key.value;
    if (body) headers["Content-Type"] = type;
    return { path: text, headers, body: body ? body.text.value : null };
  };
  const update = () => {
    command.textContent = curl(method, asked());
    copied.textContent = "";
  };
  const form = el(
    "form",
    {
      class: "request",
      "aria-label": `Try ${operation.summary}`,
      oninput: update,
      onsubmit: async (event) => {
        event.preventDefault();
        send.disabled = true;
        await ask(method, asked(), answer);
        send.disabled = false;
      },
    },
    ...[...fields].map(([one, field]) =>
      el("div", { class: "entry" }, el("label", { for: field.id }, one.name), field)),
    ...(body ? body.elements : []),
    el("div", { class: "actions" }, send),
  );
  const copy = el("button", {
    type: "button",
    class: "quiet",
    onclick: async () => {
      copied.textContent = (await copyOf(command)) ? "copied" : "select it and copy by hand";
    },
  }, "Copy");
  body?.choice?.addEventListener("change", () => {
    body.choose();
    update();
  });
  key.addEventListener("input", update);
  update();
  return el(
    "div",
    { class: "trial" },
    form,
    el("div", { class: "command" },
      el("div", { class: "panel-head" }, el("h4", {}, "As a command"), copied, copy),
      el("pre", { tabindex: "0" }, command)),
    answer,
  );
}

function bodyFields(name, content) {
  const examples = Object.entries(content.examples ?? {});
  const text = el("textarea", { id: `${name}-body`, rows: "8", spellcheck: "false", autocapitalize: "off" });
  const shown = (at) => JSON.stringify(examples[at]?.[1].value ?? {}, null, 2);
  text.value = shown(0);
  const label = el("label", { for: text.id }, `body: ${kind(content.schema)}`);
  const choice = examples.length < 2 ? null : el(
    "select",
    { "aria-label": "Example body" },
    ...examples.map(([title], at) => el("option", { value: String(at) }, title)),
  );
  const elements = [el("div", { class: "entry" }, label, choice ?? "", text)];
  return { text, choice, elements, choose: () => { text.value = shown(Number(choice.value)); } };
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function curl(method, asked) {
  const words = ["curl"];
  if (method !== "GET") words.push("-X", method);
  words.push(quoted(location.origin + asked.path));
  const lines = Object.entries(asked.headers).map(([name, value]) => `-H ${quoted(`${name}: ${value}`)}`);
  if (asked.body !== null) lines.push(`-d ${quoted(compact(asked.body))}`);
  return [words.join(" "), ...lines].join(" \\\n  ");
}

function compact(text) {
  try {
    return JSON.stringify(JSON.parse(text));
  } catch {
    return text; // Sent as it stands: a bad body is something to try, too.
  }
}

async function copyOf(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
    return true;
  } catch {
    // Browsers keep the clipboard from pages that come over plain HTTP from elsewhere.
    getSelection().selectAllChildren(element);
    return document.execCommand("copy");
  }
}

async function ask(method, asked, answer) {
  const options = { method, cache: "no-store", headers: asked.headers };
  if (asked.body !== null) options.body = asked.body;
  const started = performance.now();
  let got;
  let text;
  try {
    got = await fetch(asked.path, options);
    text = await got.text();
  } catch {
    answer.replaceChildren(el("p", { class: "status bad" }, "The server cannot be reached."));
    return;
  }
  const took = (performance.now() - started).toFixed(1);
  answer.replaceChildren(
    el("p", { class: got.ok ? "status good" : "status bad" },
      el("strong", {}, String(got.status)), ` ${got.statusText} · ${took} ms`),
    el("dl", { class: "headers" }, ...[...got.headers].map(([name, value]) =>
      el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
    el("pre", { tabindex: "0", "aria-label": "Body of the answer" }, el("code", {}, readable(text, got))),
  );
}

function readable(text, got) {
  let shown = text;
  const type = got.headers.get("content-type") ?? "";
  if (type.startsWith(JSON_TYPE) || type.includes("+json")) {
    try {
      shown = JSON.stringify(JSON.parse(text), null, 2);
    } catch {
      // Shown as it came.
    }
  }
  return shown.length > MOST_SHOWN ? `${shown.slice(0, MOST_SHOWN)}\n…` : shown;
}
