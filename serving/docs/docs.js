// The page at /docs: operations by tag out of /openapi.json, each with a request to try.

import { el, folded, prose } from "./dom.js";
import { access, request } from "./request.js";
import { component, kind, member, parts } from "./schema.js";

const at = (id) => document.getElementById(id);

const badge = (method) => el("span", { class: "method", "data-method": method }, method);

// Where the line of a long path may break: after each slash.
const breakable = (path) =>
  path.split(/(?<=\/)/).flatMap((part, index) => (index ? [el("wbr"), part] : [part]));

function operationOf(components, method, path, operation) {
  const summary = el(
    "summary",
    {},
    badge(method),
    el("code", { class: "path" }, ...breakable(path)),
    el("span", { class: "what" }, operation.summary),
  );
  return folded(summary, () => contentOf(components, method, path, operation), {
    class: "operation panel",
    id: operation.operationId,
  });
}

function contentOf(components, method, path, operation) {
  const body = Object.values(operation.requestBody?.content ?? {})[0]?.schema;
  return el(
    "div",
    { class: "content" },
    operation.description ? prose(operation.description) : "",
    ...titled("Parameters", (operation.parameters ?? []).map((one) =>
      member(components, one.name, one.schema, one.required, one.description))),
    ...titled("Body", body ? [
      el("p", { class: "kind" }, kind(body)),
      ...parts(components, body),
    ] : []),
    el("h3", {}, "Try it"),
    request(method, path, operation),
    ...titled("Answers", Object.entries(operation.responses).map(([status, answer]) =>
      answerOf(components, status, answer))),
  );
}

const titled = (title, content) => (content.length ? [el("h3", {}, title), ...content] : []);

function answerOf(components, status, answer) {
  const [[type, content]] = Object.entries(answer.content);
  const headers = Object.entries(answer.headers ?? {});
  return el(
    "div",
    { class: "member" },
    el(
      "p",
      { class: "signature" },
      el("code", { class: status < "400" ? "name good" : "name bad" }, status),
      el("span", { class: "kind" }, kind(content.schema)),
      el("span", { class: "bounds" }, type),
    ),
    prose(answer.description),
    ...headers.map(([name, header]) =>
      member(components, name, header.schema, header.required, header.description)),
    ...parts(components, content.schema),
    content.example === undefined ? "" : folded(
      el("summary", {}, "Example"),
      () => el("pre", { tabindex: "0" }, el("code", {}, JSON.stringify(content.example, null, 2))),
      { class: "schema" },
    ),
  );
}

function show(description) {
  const { info, tags, paths, components: { schemas, securitySchemes } } = description;
  const all = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, one]) => [method.toUpperCase(), path, one]));
  at("version").textContent = info.version;
  const about = prose(info.description);
  about.id = "about";
  const sections = tags.map((tag) => el(
    "section",
    { "aria-labelledby": `tag-${tag.name}` },
    el("h2", { id: `tag-${tag.name}` }, tag.name),
    el("p", { class: "hint" }, tag.description),
    ...all.filter(([, , one]) => one.tags.includes(tag.name))
      .map(([method, path, one]) => operationOf(schemas, method, path, one)),
  ));
  const types = el(
    "section",
    { "aria-labelledby": "schemas" },
    el("h2", { id: "schemas" }, "schemas"),
    el("div", { class: "panel" }, ...Object.keys(schemas).sort().map((name) => component(schemas, name))),
  );
  at("operations").replaceChildren(about, securitySchemes ? access() : "", ...sections, types);
  at("contents").replaceChildren(...tags.map((tag) => el(
    "div",
    {},
    el("h2", {}, tag.name),
    el("ul", {}, ...all.filter(([, , one]) => one.tags.includes(tag.name)).map(([method, , one]) =>
      el("li", {}, el("a", { href: `#${one.operationId}` }, one.summary, badge(method))))),
  )));
  openNamed();
}

/** Open what the address names, so that operations can be linked to. */
function openNamed() {
  const named = at(decodeURIComponent(location.hash.slice(1)));
  if (!named) return;
  if (named.tagName === "DETAILS") named.open = true;
  named.scrollIntoView();
  (named.querySelector("summary") ?? named).focus({ preventScroll: true });
}

addEventListener("hashchange", openNamed);
try {
  const answer = await fetch("/openapi.json");
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  show(await answer.json());
} catch (error) {
  at("about").textContent = `The description cannot be read: ${error.message}. Reload to try again.`;
}
