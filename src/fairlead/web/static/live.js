// The live figures: polls the metrics while the page is seen, and draws the last two minutes.

import { call } from "./api.js";
import { formatMs } from "./answer.js";
import { byId, el, svg } from "./dom.js";
import { rates, totalsByModel, totalsOf } from "./prometheus.js";

const EVERY_MS = 2000;
const KEPT_MS = 120_000;
const HEADLINE_MS = 10_000;
const WIDTH = 120;
const HEIGHT = 32;

const perSecond = (value) => (value === null ? "–" : value === 0 ? "0" : formatNumber(value));
const seconds = (value) => (value === null ? "–" : formatMs(value * 1000));

// Each tile: its lines, which one is told in large, and what is told below.
const TILES = [
  { title: "Requests / s", lines: ["requests"], large: (r) => perSecond(r.requests) },
  { title: "Rows / s", lines: ["rows"], large: (r) => perSecond(r.rows) },
  { title: "Latency p50", lines: ["p50", "p99"], large: (r) => seconds(r.p50), small: (r) => `p99 ${seconds(r.p99)}` },
  { title: "Errors / s", lines: ["allErrors"], large: (r) => perSecond(r.allErrors), small: codes, isBad: (r) => r.allErrors > 0 },
  { title: "Queued rows", lines: ["queue"], large: (r) => (r.queue === null ? "–" : formatNumber(r.queue)), small: inFlight },
  { title: "Rows a batch", lines: ["meanBatch"], large: (r) => (r.meanBatch === null ? "–" : formatNumber(r.meanBatch)) },
];

function codes({ errors }) {
  return Object.entries(errors).map(([code, rate]) => `${code}: ${perSecond(rate)}`).join(" · ");
}

function inFlight({ inFlight }) {
  return inFlight === null ? "" : `${formatNumber(inFlight)} in flight`;
}

function formatNumber(value) {
  if (value >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(value >= 100 ? 3 : 2)));
}

export function startLive(onKeyNeeded, onNone) {
  const tiles = TILES.map(makeTile);
  byId("tiles").append(...tiles.map((tile) => tile.node));
  let kept = [];
  let model = null;
  let timer = null;
  let isStopped = false;

  async function poll() {
    clearTimeout(timer);
    if (document.hidden || isStopped) return;
    await read();
    clearTimeout(timer);
    if (!isStopped) timer = setTimeout(poll, EVERY_MS);
  }

  async function read() {
    try {
      const response = await call("metrics", { headers: { Accept: "text/plain" } });
      if (response.ok) {
        kept.push({ at: performance.now(), ...totalsByModel(await response.text()) });
        kept = kept.filter(({ at }) => at >= performance.now() - KEPT_MS);
        draw();
        say("Last 10 seconds, charts of 2 minutes", true);
      } else refuse(response.status);
    } catch {
      say("The server does not answer; trying again.", false);
    }
  }

  function refuse(status) {
    isStopped = status === 404 || status === 401 || status === 403;
    byId("tiles").hidden = isStopped;
    if (status === 404) say("This server offers no metrics.", false);
    else if (status === 401) say("The metrics need an API key.", false);
    else if (status === 403) say("This key may not read the metrics.", false);
    else say(`The metrics answered ${status}; trying again.`, false);
    if (status === 401) onKeyNeeded();
    if (status === 404) onNone();
  }

  function draw() {
    const series = kept.map((snapshot) => ({ at: snapshot.at, inFlight: snapshot.inFlight, totals: totalsOf(snapshot, model) }));
    const points = series.slice(1).map((one, i) => ({ at: one.at, rate: between(series[i], one) }));
    const last = series.at(-1);
    const from = series.findLast(({ at }) => at <= last.at - HEADLINE_MS + EVERY_MS / 2) ?? series[0];
    const now = from === last ? null : between(from, last);
    tiles.forEach((tile) => tile.draw(now, points, last.at));
  }

  function between(before, after) {
    const found = rates(before.totals, after.totals, (after.at - before.at) / 1000);
    return found && { ...found, inFlight: after.inFlight };
  }

  document.addEventListener("visibilitychange", poll);
  return {
    poll,
    show: (name) => {
      model = name;
      if (kept.length > 0) draw();
    },
    restart: () => {
      isStopped = false;
      byId("tiles").hidden = false;
      poll();
    },
  };
}

function say(text, isLive) {
  const note = byId("live-note");
  if (note.textContent !== text) note.textContent = text;
  note.classList.toggle("beating", isLive);
}

function makeTile({ title, lines, large, small, isBad }) {
  const value = el("dd", { class: "value" }, "–");
  const more = el("dd", { class: "more" });
  const paths = lines.map((_, i) => svg("path", { class: `line line-${i}` }));
  const area = svg("path", { class: "area" });
  const chart = svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true", focusable: "false" },
    area,
    paths,
  );
  const node = el("div", { class: "tile" }, el("dl", {}, el("dt", {}, title), value, more), chart);

  function draw(now, points, end) {
    value.textContent = now ? large(now) : "–";
    more.textContent = now && small ? small(now) : "";
    node.classList.toggle("bad", Boolean(now && isBad?.(now)));
    const of = (name) => points.map(({ at, rate }) => [at, rate?.[name] ?? null]);
    const all = lines.flatMap((name) => of(name)).map(([, y]) => y ?? 0);
    const top = Math.max(...all, 0) || 1;
    paths.forEach((path, i) => path.setAttribute("d", lineOf(of(lines[i]), end, top)));
    area.setAttribute("d", areaOf(of(lines[0]), end, top));
  }
  return { node, draw };
}

const toX = (at, end) => (WIDTH * (1 - (end - at) / KEPT_MS)).toFixed(1);
const toY = (value, top) => (HEIGHT - 2 - (value / top) * (HEIGHT - 4)).toFixed(1);

// Stretches of the line; where nothing is known there is a gap.
function stretches(points) {
  const found = [[]];
  for (const point of points) {
    if (point[1] === null) found.push([]);
    else found.at(-1).push(point);
  }
  return found.filter((one) => one.length > 0);
}

function lineOf(points, end, top) {
  // A lone point is drawn as a short stroke.
  const path = (one) => `M${one.map(([at, y]) => `${toX(at, end)} ${toY(y, top)}`).join("L")}${one.length === 1 ? "h0.8" : ""}`;
  return stretches(points).map(path).join("");
}

function areaOf(points, end, top) {
  return stretches(points)
    .map((one) => `M${toX(one[0][0], end)} ${HEIGHT}L${one.map(([at, y]) => `${toX(at, end)} ${toY(y, top)}`).join("L")}V${HEIGHT}Z`)
    .join("");
}
