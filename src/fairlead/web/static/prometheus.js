// Reads Prometheus text, and computes rates and quantiles from the difference of two snapshots.
// Source: Prometheus exposition format 0.0.4; histogram_quantile of PromQL.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const NUMBERS = { "+Inf": Infinity, Inf: Infinity, "-Inf": -Infinity };

export function* samples(text) {
  for (const line of text.split("\n")) {
    const found = line.startsWith("#") ? null : LINE.exec(line);
    if (!found) continue;
    const labels = {};
    for (const [, name, value] of (found[2] ?? "").matchAll(LABEL))
      labels[name] = value.replace(/\\(.)/g, (_, one) => (one === "n" ? "\n" : one));
    yield { name: found[1], labels, value: NUMBERS[found[3]] ?? Number(found[3]) };
  }
}

export const emptyTotals = () => ({
  requests: 0,
  errors: {},
  buckets: new Map(),
  rows: 0,
  batches: 0,
  batchRows: 0,
  queue: null,
});

// Give a Map from a model's name to its totals. Requests of no model, such as probes and the reading of
// these very metrics, are left out.
export function totalsByModel(text) {
  const byModel = new Map();
  let inFlight = null;
  for (const { name, labels, value } of samples(text)) {
    if (Number.isNaN(value)) continue;
    if (name === "fairlead_in_flight_requests") inFlight = (inFlight ?? 0) + value;
    if (!labels.model || !name.startsWith("fairlead_")) continue;
    if (!byModel.has(labels.model)) byModel.set(labels.model, emptyTotals());
    add(byModel.get(labels.model), name, labels, value);
  }
  return { byModel, inFlight };
}

function add(totals, name, labels, value) {
  if (name === "fairlead_requests_total") {
    totals.requests += value;
    if (labels.code >= "400") totals.errors[labels.code] = (totals.errors[labels.code] ?? 0) + value;
  } else if (name === "fairlead_request_duration_seconds_bucket") {
    const bound = NUMBERS[labels.le] ?? Number(labels.le);
    totals.buckets.set(bound, (totals.buckets.get(bound) ?? 0) + value);
  } else if (name === "fairlead_rows_total") totals.rows += value;
  else if (name === "fairlead_batch_rows_sum") totals.batchRows += value;
  else if (name === "fairlead_batch_rows_count") totals.batches += value;
  else if (name === "fairlead_queue_rows") totals.queue = (totals.queue ?? 0) + value;
}

// Add up the totals of all models, or take those of one.
export function totalsOf(snapshot, model) {
  if (model !== null) return snapshot.byModel.get(model) ?? emptyTotals();
  const sum = emptyTotals();
  for (const one of snapshot.byModel.values()) {
    for (const field of ["requests", "rows", "batches", "batchRows"]) sum[field] += one[field];
    if (one.queue !== null) sum.queue = (sum.queue ?? 0) + one.queue;
    for (const [code, count] of Object.entries(one.errors)) sum.errors[code] = (sum.errors[code] ?? 0) + count;
    for (const [bound, count] of one.buckets) sum.buckets.set(bound, (sum.buckets.get(bound) ?? 0) + count);
  }
  return sum;
}

// What happened between two totals; null when a counter went back, as it does when the server is restarted.
export function rates(before, after, seconds) {
  const gone = (field) => after[field] - before[field];
  const errors = {};
  for (const [code, count] of Object.entries(after.errors)) {
    const more = count - (before.errors[code] ?? 0);
    if (more > 0) errors[code] = more / seconds;
  }
  const buckets = [...after.buckets].map(([bound, count]) => [bound, count - (before.buckets.get(bound) ?? 0)]);
  buckets.sort((a, b) => a[0] - b[0]);
  if (["requests", "rows", "batches"].some((field) => gone(field) < 0) || buckets.some(([, count]) => count < 0)) return null;
  return {
    requests: gone("requests") / seconds,
    rows: gone("rows") / seconds,
    errors,
    allErrors: Object.values(errors).reduce((a, b) => a + b, 0),
    p50: quantile(0.5, buckets),
    p99: quantile(0.99, buckets),
    meanBatch: gone("batches") > 0 ? gone("batchRows") / gone("batches") : null,
    queue: after.queue,
  };
}

// Give a quantile in the buckets' unit from [bound, cumulative count] in order; null when nothing happened.
export function quantile(share, buckets) {
  const total = buckets.at(-1)?.[1] ?? 0;
  if (total === 0) return null;
  const rank = share * total;
  const place = buckets.findIndex(([, count]) => count >= rank);
  const [low, below] = place > 0 ? buckets[place - 1] : [0, 0];
  const [high, upTo] = buckets[place];
  if (high === Infinity) return low;
  return low + ((high - low) * (rank - below)) / (upTo - below);
}
