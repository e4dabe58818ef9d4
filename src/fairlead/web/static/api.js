// Talks to the server. Addresses are relative to the page, so that it works behind a path prefix too.

const KEY = `fairlead-key:${new URL(".", document.baseURI).pathname}`;

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  // What a header can hold; fetch would throw on anything else.
  isValid: (value) => /^[\x21-\x7e]+$/.test(value),
};

export function call(address, options = {}) {
  const headers = { ...options.headers };
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  return fetch(address, { cache: "no-store", ...options, headers });
}

// Give an integer that a double cannot hold as its text, so that no digit is lost on the way to the form.
export function parse(text) {
  return JSON.parse(text, (_, value, context) =>
    Number.isInteger(value) && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? "")
      ? context.source
      : value,
  );
}

export async function readJson(address) {
  const response = await call(address);
  if (!response.ok) throw Object.assign(new Error(`${address} answered ${response.status}`), { status: response.status });
  return parse(await response.text());
}

export const predictAddress = (name) => `models/${encodeURIComponent(name)}/predict`;

export async function predict(name, body) {
  const began = performance.now();
  const headers = { "Content-Type": "application/json", Accept: "application/json" };
  const response = await call(predictAddress(name), { method: "POST", headers, body });
  const text = await response.text();
  return {
    status: response.status,
    phrase: response.statusText,
    text,
    value: parsed(text),
    milliseconds: performance.now() - began,
    version: response.headers.get("X-Model-Version"),
    retryAfter: response.headers.get("Retry-After"),
  };
}

function parsed(text) {
  try {
    return parse(text);
  } catch {
    return undefined;
  }
}

export function curl(name, body) {
  const lines = [`curl ${quote(new URL(predictAddress(name), document.baseURI).href)}`];
  if (key.get()) lines.push('-H "Authorization: Bearer $API_KEY"');
  lines.push("-H 'Content-Type: application/json'", `-d ${quote(body)}`);
  return lines.join(" \\\n  ");
}

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// Indent JSON without reading its numbers, which are shown digit for digit as they came.
export function indent(text) {
  let depth = 0;
  let out = "";
  const newline = () => "\n" + "  ".repeat(depth);
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g) ?? [];
  tokens.forEach((token, i) => {
    const empty = /[{[]/.test(tokens[i - 1] ?? "") && /[}\]]/.test(token);
    if (/^[}\]]$/.test(token)) {
      depth -= 1;
      out += empty ? token : newline() + token;
    } else {
      if (/^[{[]$/.test(tokens[i - 1] ?? "")) out += newline();
      out += token === "," ? "," + newline() : token === ":" ? ": " : token;
      if (/^[{[]$/.test(token)) depth += 1;
    }
  });
  return out;
}
