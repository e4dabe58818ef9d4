// A form made from a model's features. The server is the judge of what is valid: the form sends what was
// typed, as JSON text, and shows at each field what the server says of it.

import { el, show, wordOf } from "./dom.js";
import { rangeText } from "./schema.js";

const JSON_NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;
const SHOWN_CHIPS = 6;

let made = 0;

export function makeForm(model, onPredict, onChange) {
  const fields = model.features.map((feature) => makeField(feature, model.example[feature.name]));
  const predict = el("button", { type: "submit", class: "primary" }, "Predict");
  const reset = el("button", { type: "button", onclick: refill }, "Example values");
  const node = el(
    "form",
    { novalidate: true, autocomplete: "off", onsubmit: submit, oninput: onChange, onchange: onChange },
    el("div", { class: "fields" }, fields.map((field) => field.node)),
    el("div", { class: "actions" }, predict, reset),
  );

  function submit(event) {
    event.preventDefault();
    if (predict.getAttribute("aria-disabled") === "true") return;
    mark([]);
    const unreadable = fields.filter((field) => field.control.validity?.badInput);
    if (unreadable.length > 0) {
      const got = "something else";
      onPredict(null, unreadable.map(({ feature }) => ({ name: feature.name, expected: expected(feature), got })));
    } else onPredict(body());
  }

  function refill() {
    fields.forEach((field) => field.write(field.first));
    mark([]);
    onChange();
  }

  function body() {
    const members = fields.map((field) => [field.feature.name, field.read()]).filter(([, text]) => text !== undefined);
    return `{${members.map(([name, text]) => `${JSON.stringify(name)}: ${text}`).join(", ")}}`;
  }

  // Show problems at their fields; give those that belong to none.
  function mark(problems) {
    const left = new Map(problems.map((problem) => [problem.name, problem]));
    for (const field of fields) {
      field.mark(left.get(field.feature.name));
      left.delete(field.feature.name);
    }
    return [...left.values()];
  }

  function find(text) {
    const wanted = text.trim().toLowerCase();
    for (const { node, feature, problem } of fields) show(node, problem() || feature.name.toLowerCase().includes(wanted));
  }

  return {
    node,
    body,
    mark,
    find,
    focusFirstProblem: () => fields.find((field) => field.problem())?.control.focus(),
    setBusy: (busy) => {
      predict.setAttribute("aria-disabled", busy);
      predict.textContent = busy ? "Predicting …" : "Predict";
    },
  };
}

function expected({ type }) {
  return { integer: "an integer", number: "a number", datetime: "a date and time" }[type] ?? `a ${type}`;
}

function makeField(feature, example) {
  const id = `field-${(made += 1)}`;
  const first = example === undefined ? feature.default : example;
  const { control, read, write, extra } = choose(feature, id);
  const hint = hintText(feature);
  const error = el("p", { class: "error", id: `${id}-error`, hidden: true });
  control.setAttribute("aria-describedby", hint ? `${id}-hint ${id}-error` : `${id}-error`);
  const label = el(
    "label",
    { for: id },
    el("span", { class: "name" }, feature.name),
    feature.unit && el("span", { class: "unit" }, ` ${feature.unit}`),
    feature.required && el("span", { class: "star", "aria-hidden": "true" }, " *"),
  );
  const inner = control.type === "checkbox" ? el("span", { class: "check" }, control, el("span", { "aria-hidden": "true" })) : control;
  const node = el(
    "div",
    { class: feature.type === "datetime" ? "field long" : "field" },
    label,
    inner,
    error,
    extra,
    hint && el("p", { class: "hint", id: `${id}-hint` }, hint),
  );
  write(first);

  let problem = null;
  function mark(found) {
    problem = found ?? null;
    control.toggleAttribute("aria-invalid", Boolean(problem));
    if (problem) control.setAttribute("aria-invalid", "true");
    error.textContent = problem ? `Expected ${problem.expected}, got ${problem.got}` : "";
    show(error, problem);
    if (problem) show(node, true);
  }
  control.addEventListener("input", () => problem && mark(null));
  return { feature, node, control, first, read, write, mark, problem: () => problem };
}

function hintText(feature) {
  const parts = [feature.description];
  const range = rangeText(feature);
  if (range) parts.push(`seen ${range}`);
  if (feature.type === "datetime") parts.push("in UTC");
  if (feature.categories.length > SHOWN_CHIPS && !feature.closed) parts.push(`${feature.categories.length} known values`);
  if (feature.nullable && feature.type !== "boolean" && !feature.closed) parts.push("empty: null");
  else if (feature.default !== undefined && feature.type !== "boolean") parts.push(`empty: ${JSON.stringify(feature.default)}`);
  const text = parts.filter(Boolean).join(" · ");
  return text && text[0].toUpperCase() + text.slice(1);
}

// Each kind gives its control, how to read it as JSON text (undefined: leave the key out), and how to fill it.
function choose(feature, id) {
  if (feature.closed) return choice(feature, id, feature.categories);
  if (feature.type === "boolean") return feature.nullable ? choice(feature, id, [true, false]) : checkbox(id);
  return typed(feature, id);
}

function checkbox(id) {
  const control = el("input", { id, type: "checkbox" });
  return { control, read: () => String(control.checked), write: (value) => (control.checked = value === true) };
}

function choice(feature, id, values) {
  // Options are known by their place, since a category may be the empty string or a number.
  const offered = feature.nullable ? [...values, null] : [...values];
  const options = offered.map((value, place) => el("option", { value: place }, wordOf(value)));
  const control = el("select", { id, required: feature.required }, el("option", { value: "" }, "–"), options);
  return {
    control,
    read: () => (control.value === "" ? undefined : JSON.stringify(offered[control.value])),
    write: (value) => {
      const place = offered.indexOf(value);
      control.value = place === -1 ? "" : String(place);
    },
  };
}

function typed(feature, id) {
  const number = feature.type === "integer" || feature.type === "number";
  const kinds = { integer: "number", number: "number", datetime: "datetime-local" };
  const control = el("input", {
    id,
    type: kinds[feature.type] ?? "text",
    step: feature.type === "integer" ? "1" : number ? "any" : feature.type === "datetime" ? "1" : null,
    inputmode: number && !(Number(feature.low) < 0) ? (feature.type === "integer" ? "numeric" : "decimal") : null,
    required: feature.required && !feature.nullable,
    spellcheck: "false",
    autocapitalize: "off",
    placeholder: feature.nullable ? "null" : feature.default === undefined ? null : String(feature.default),
    list: feature.categories.length > 0 ? `${id}-list` : null,
  });
  const write = (value) => (control.value = value === null || value === undefined ? "" : toField(feature, value));
  const { nodes, showChosen } = suggestions(feature, id, control);
  control.addEventListener("input", showChosen);
  const read = () => toJson(feature, control.value);
  return { control, read, write: (value) => (write(value), showChosen()), extra: nodes };
}

function toField(feature, value) {
  if (feature.type !== "datetime") return String(value);
  const zoned = /(Z|[+-]\d\d:?\d\d)$/i.test(value) ? value : `${value}Z`;
  const when = new Date(zoned);
  return Number.isNaN(when.valueOf()) ? "" : when.toISOString().slice(0, 19);
}

function toJson(feature, text) {
  if (text === "") return feature.nullable ? "null" : undefined;
  if (feature.type === "datetime") return JSON.stringify(`${text.length === 16 ? `${text}:00` : text}Z`);
  if (feature.type !== "integer" && feature.type !== "number") return JSON.stringify(text);
  // As typed, so that an integer of 64 bits keeps its digits; HTML also allows .5 and 007.
  return JSON_NUMBER.test(text) ? text : String(Number(text));
}

// Browsers offer of a datalist only what matches the text there, so a few values are shown as well.
function suggestions(feature, id, control) {
  if (feature.categories.length === 0) return { nodes: [], showChosen: () => {} };
  const list = el("datalist", { id: `${id}-list` }, feature.categories.map((value) => el("option", { value: String(value) })));
  if (feature.categories.length > SHOWN_CHIPS) return { nodes: [list], showChosen: () => {} };
  const chips = feature.categories.map((value) => el("button", { type: "button", class: "chip", tabindex: "-1", onclick: take }, String(value)));
  function take(event) {
    control.value = event.currentTarget.textContent;
    control.dispatchEvent(new Event("input", { bubbles: true }));
  }
  const group = el("div", { class: "chips", role: "group", "aria-label": `Known values of ${feature.name}` }, chips);
  const showChosen = () => chips.forEach((chip) => chip.classList.toggle("chosen", chip.textContent === control.value));
  return { nodes: [list, group], showChosen };
}
