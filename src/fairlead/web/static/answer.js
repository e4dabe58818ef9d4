// Shows what came back: the outputs of a prediction, or why there is none.

import { el } from "./dom.js";

// Where the server, or a proxy before it, gives no reason in words.
const REASONS = {
  403: "This key may not use this model.",
  413: "The request is larger than the server takes.",
  429: "Too many requests.",
  503: "The server is busy or starting.",
  504: "The model did not answer in time.",
};
const SHOWN_BARS = 10;

export function emptyAnswer() {
  return [el("p", { class: "hint" }, "An example record is filled in. Change what you like, then press Predict.")];
}

export function failedAnswer() {
  return [el("p", { class: "notice bad" }, "The server did not answer: it is down, or the network is.")];
}

export function answerOf(reply, outputs, others) {
  const line = el(
    "p",
    { class: "outcome" },
    el("span", { class: reply.status < 300 ? "status good" : "status bad" }, `${reply.status} ${reply.phrase}`.trim()),
    el("span", { class: "took" }, `${formatMs(reply.milliseconds)} in this browser`),
    reply.version && el("span", { class: "version" }, `version ${reply.version}`),
  );
  if (reply.status < 300 && reply.value !== undefined) return [line, ...outputsOf(reply.value, outputs)];
  return [line, ...refusal(reply, others)];
}

export function invalidAnswer(count, others) {
  const text = count === 1 ? "1 field cannot be read" : `${count} fields cannot be read`;
  return [el("p", { class: "notice bad" }, `${text}; nothing was sent.`), ...problemList(others)];
}

// The last name of a JSONPath such as $.tenure, $[0].tenure or $["monthly charges"].
export function featureOf(path) {
  const quoted = /\[("(?:[^"\\]|\\.)*")\]$/.exec(path);
  if (quoted) return JSON.parse(quoted[1]);
  return /\.([^.\]]+)$/.exec(path)?.[1] ?? path;
}

function refusal(reply, others) {
  const said = typeof reply.value?.detail === "string" ? reply.value.detail : null;
  const text = reply.status === 401 ? "The server asks for an API key: fill it in above." : (said ?? REASONS[reply.status]);
  const id = reply.value?.request_id;
  return [
    el("p", { class: "notice bad" }, sentence(text ?? "The server gave no reason"), reply.retryAfter && ` ${retryText(reply.retryAfter)}`),
    ...problemList(others),
    id && el("p", { class: "hint" }, "Request id ", el("code", {}, id)),
  ].filter(Boolean);
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1).replace(/[^.!?]$/, "$&.");

function retryText(value) {
  if (!/^\d+$/.test(value)) return `Try again after ${value}.`;
  return `Try again in ${value} ${value === "1" ? "second" : "seconds"}.`;
}

function problemList(problems) {
  if (problems.length === 0) return [];
  const items = problems.map(({ name, expected, got }) => el("li", {}, el("b", {}, name), `: expected ${expected}, got ${got}`));
  return [el("ul", { class: "problems" }, items)];
}

function outputsOf(value, outputs) {
  const named = isObject(value) ? Object.entries(value) : [["prediction", value]];
  const isWide = ([name, one]) => isShares(one, outputs[name]) || (one !== null && typeof one === "object");
  const small = named.filter((one) => !isWide(one));
  const wide = named.filter(isWide);
  return [
    small.length > 0 && el("dl", { class: "outputs" }, small.map(([name, one]) => scalar(name, one, outputs[name]))),
    ...wide.map(([name, one]) => (isShares(one, outputs[name]) ? bars(name, one) : json(name, one))),
  ].filter(Boolean);
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

const isShare = (value) => typeof value === "number" && value >= 0 && value <= 1;

function isShares(value, schema) {
  if (!isObject(value)) return false;
  const members = Object.values(value);
  if (members.length === 0 || !members.every(isShare)) return false;
  // A function may give an object of small numbers that are no probabilities.
  return Boolean(schema?.properties) || Math.abs(members.reduce((a, b) => a + b) - 1) < 1e-3;
}

function scalar(name, value, schema) {
  const isProbability = isShare(value) && schema?.minimum === 0 && schema?.maximum === 1;
  const kind = typeof value === "boolean" ? `flag ${value}` : "";
  const text = isProbability ? formatShare(value) : formatValue(value);
  return el(
    "div",
    {},
    el("dt", {}, name),
    el("dd", { class: kind, title: String(value) }, el("span", {}, text), isProbability && bar(value)),
    schema?.description && el("dd", { class: "hint" }, schema.description),
  );
}

function bars(name, shares) {
  const sorted = Object.entries(shares).sort((a, b) => b[1] - a[1]);
  const left = sorted.length - SHOWN_BARS;
  const rows = sorted.slice(0, SHOWN_BARS).map(([label, share], place) =>
    el(
      "li",
      { class: place === 0 ? "first" : null, title: String(share) },
      el("span", { class: "label" }, label),
      bar(share),
      el("span", { class: "share" }, formatShare(share)),
    ),
  );
  return el(
    "div",
    { class: "bars" },
    el("h3", {}, name),
    el("ol", {}, rows),
    left > 0 && el("p", { class: "hint" }, `${left} more in the response`),
  );
}

function bar(share) {
  const filled = el("span", {});
  filled.style.width = `${share * 100}%`;
  return el("span", { class: "bar", "aria-hidden": "true" }, filled);
}

function json(name, value) {
  return el("div", { class: "bars" }, el("h3", {}, name), el("pre", {}, JSON.stringify(value, null, 2)));
}

function formatValue(value) {
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en", { useGrouping: Math.abs(value) >= 10_000 });
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e12)) return value.toExponential(4);
  return value.toLocaleString("en", { maximumSignificantDigits: 6 });
}

function formatShare(share) {
  if (share > 0 && share < 0.0001) return "< 0.01 %";
  if (share < 1 && share > 0.9999) return "> 99.99 %";
  return `${(share * 100).toLocaleString("en", { maximumFractionDigits: 2 })} %`;
}

export function formatMs(milliseconds) {
  if (milliseconds >= 10_000) return `${(milliseconds / 1000).toFixed(1)} s`;
  return `${milliseconds >= 100 ? milliseconds.toFixed(0) : Number(milliseconds.toPrecision(2))} ms`;
}
