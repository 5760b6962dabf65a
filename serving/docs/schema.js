// JSON Schemas in words: what a value may be, its bounds, and what it is made of.

import { el, folded, prose } from "./dom.js";

const REF = "#/components/schemas/";
const nameOf = (schema) => schema.$ref?.slice(REF.length);

/** A schema's kind in words: `array of Event or null`. */
export function kind(schema) {
  if (schema.$ref) return nameOf(schema);
  if (schema.anyOf) return schema.anyOf.map(kind).join(" or ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.type === "array") return `array of ${schema.items ? kind(schema.items) : "anything"}`;
  if (schema.type === "object" && typeof schema.additionalProperties === "object") {
    return `object of ${kind(schema.additionalProperties)}`;
  }
  return schema.type ?? "anything";
}

const range = (least, most, unit) => {
  if (least === undefined && most === undefined) return [];
  const words = unit ? ` ${unit}` : "";
  if (least === undefined) return [`at most ${most}${words}`];
  if (most === undefined) return [`at least ${least}${words}`];
  return [`${least} to ${most}${words}`];
};

/** A schema's bounds, in words. */
export function bounds(schema) {
  const inner = (schema.anyOf ?? []).filter((one) => !one.$ref).flatMap(bounds);
  const below = schema.exclusiveMaximum === undefined ? [] : [`below ${schema.exclusiveMaximum}`];
  const standard = schema.default ?? null;
  return [
    ...range(schema.minimum, schema.maximum),
    ...below,
    ...range(schema.minLength, schema.maxLength, "characters"),
    ...range(schema.minItems, schema.maxItems, "entries"),
    ...(schema.type === "array" && !schema.items?.$ref
      ? bounds(schema.items ?? {}).map((one) => `each ${one}`) : []),
    ...(schema.format ? [schema.format] : []),
    ...inner,
    ...(standard === null ? [] : [`default ${JSON.stringify(standard)}`]),
  ];
}

/** Names of the components that a schema refers to without another in between. */
function references(schema) {
  if (schema.$ref) return [nameOf(schema)];
  const inner = [...(schema.anyOf ?? []), schema.items, schema.additionalProperties];
  return [...new Set(inner.filter((one) => one && typeof one === "object").flatMap(references))];
}

/** One named value: a parameter, or a field of an object. */
export function member(components, name, schema, required, text = schema.description) {
  const limits = bounds(schema);
  return el(
    "div",
    { class: "member" },
    el(
      "p",
      { class: "signature" },
      el("code", { class: "name" }, name),
      el("span", { class: "kind" }, kind(schema)),
      required ? el("span", { class: "required" }, "required") : "",
      limits.length ? el("span", { class: "bounds" }, limits.join(", ")) : "",
    ),
    text ? prose(text) : "",
    ...parts(components, schema),
  );
}

/** What a schema is made of, each component folded up. */
export function parts(components, schema) {
  return references(schema).map((name) => component(components, name));
}

/** A component by its name, folded up. */
export function component(components, name, attributes = {}) {
  const summary = el("summary", {}, el("code", {}, name));
  return folded(summary, () => fields(components, components[name]), {
    class: "schema",
    ...attributes,
  });
}

function fields(components, schema) {
  const required = new Set(schema.required);
  const properties = Object.entries(schema.properties ?? {});
  return el(
    "div",
    { class: "fields" },
    schema.description ? prose(schema.description) : "",
    ...(properties.length
      ? properties.map(([name, one]) => member(components, name, one, required.has(name)))
      : [el("p", { class: "kind" }, kind(schema)), ...parts(components, schema)]),
    schema.properties && schema.additionalProperties === undefined
      ? el("p", { class: "hint" }, "Other fields are allowed.") : "",
  );
}
