// Reads the service's OpenAPI document, and shows a model's schema as tables.

import { el, wordOf } from "./dom.js";

const PATH = /^\/models\/([^/]+)\/predict$/;

export function readModels(openapi) {
  const schemas = openapi.components?.schemas ?? {};
  const told = new Map((openapi.tags ?? []).map((tag) => [tag.name, tag.description ?? ""]));
  return Object.keys(openapi.paths ?? {})
    .map((path) => PATH.exec(path)?.[1])
    .filter((name) => name !== undefined)
    .map((name) => readModel(decodeURIComponent(name), schemas, told));
}

function readModel(name, schemas, told) {
  const record = schemas[`${name}.record`] ?? {};
  const required = new Set(record.required ?? []);
  return {
    name,
    facts: (told.get(name) ?? "").split(", ").filter(Boolean),
    features: Object.entries(record.properties ?? {}).map(([key, schema]) => readFeature(key, schema, required.has(key))),
    example: record.examples?.[0] ?? {},
    forbidsOthers: record.additionalProperties === false,
    outputs: schemas[`${name}.prediction`]?.properties ?? {},
  };
}

function readFeature(name, schema, required) {
  const types = [schema.type ?? "string"].flat();
  const type = schema.format === "date-time" ? "datetime" : (types.find((one) => one !== "null") ?? "string");
  const closed = Array.isArray(schema.enum);
  const categories = closed ? schema.enum.filter((one) => one !== null) : (schema["x-categories"] ?? []);
  const nullable = types.includes("null");
  return { name, type, nullable, required, closed, categories, default: schema.default, ...readTold(schema.description) };
}

// The server tells unit and range in words at the description's end, in this order (json_schema.py).
function readTold(description = "") {
  let text = description.replace(/(^|\. )Values other than the known categories are accepted\.$/, (_, dot) => (dot ? "." : ""));
  const told = { unit: "", low: undefined, high: undefined };
  text = text.replace(/(^|\. )Seen in training:(?: from (\S+))?(?: to (\S+))?\.$/, (_, dot, low, high) => {
    Object.assign(told, { low, high });
    return dot ? "." : "";
  });
  text = text.replace(/(^|\. )Unit: ((?:(?!\. ).)+)\.$/, (_, dot, unit) => {
    told.unit = unit;
    return dot ? "." : "";
  });
  return { ...told, description: text.replace(/\.$/, "") };
}

export function rangeText({ low, high }) {
  if (low !== undefined && high !== undefined) return `${low} to ${high}`;
  if (low !== undefined) return `from ${low}`;
  return high === undefined ? "" : `to ${high}`;
}

const TYPE_NAMES = { datetime: "date-time" };

export function schemaTables(model) {
  const inputs = model.features.map((feature) => [
    el("th", { scope: "row" }, feature.name, feature.required && el("span", { class: "star", title: "required" }, " *")),
    TYPE_NAMES[feature.type] ?? feature.type,
    feature.nullable ? "yes" : "no",
    knownValues(feature),
    feature.unit,
    feature.default === undefined ? "" : JSON.stringify(feature.default),
    feature.description,
  ]);
  const outputs = Object.entries(model.outputs).map(([name, schema]) => [
    el("th", { scope: "row" }, name),
    [schema.type ?? "any"].flat().join(" or "),
    schema.enum ? words(schema.enum) : schema.properties ? words(Object.keys(schema.properties)) : "",
    schema.description ?? "",
  ]);
  return [
    table("Features", ["Feature", "Type", "Null", "Known values", "Unit", "Default", "Description"], inputs),
    outputs.length > 0 && table("Outputs", ["Output", "Type", "Values", "Description"], outputs),
  ].filter(Boolean);
}

function knownValues(feature) {
  if (feature.categories.length === 0) return rangeText(feature);
  return [words(feature.categories), !feature.closed && el("span", { class: "quiet" }, " or others")];
}

const words = (values) => el("span", { class: "words" }, values.map((value) => el("span", {}, wordOf(value))));

function table(caption, columns, rows) {
  // A column nobody fills is left out.
  const kept = columns.map((_, i) => i === 0 || rows.some((row) => row[i] !== ""));
  const cells = (row) => row.filter((_, i) => kept[i]);
  // On a phone rows are shown as lists, which would end their being a table to screen readers but for the roles.
  const heads = cells(columns).map((column) => el("th", { scope: "col", role: "columnheader" }, column));
  const body = rows.map((row) => {
    const [first, ...others] = cells(row).map((cell, i) => (i === 0 ? cell : dataCell(cells(columns)[i], cell)));
    first.setAttribute("role", "rowheader");
    return el("tr", { role: "row" }, first, others);
  });
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el(
      "table",
      { role: "table" },
      el("caption", {}, caption),
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, heads)),
      el("tbody", { role: "rowgroup" }, body),
    ),
  );
}

function dataCell(column, content) {
  const isEmpty = content === "";
  return el("td", { role: "cell", "data-column": column }, isEmpty ? [] : el("span", {}, content));
}
