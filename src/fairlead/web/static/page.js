// The page: what is served, a form to try it, and how it is doing. Everything it knows comes from
// openapi.json, the models' own answers and metrics, all of this server.

import { curl, indent, key, predict, predictAddress, readJson } from "./api.js";
import { answerOf, emptyAnswer, failedAnswer, featureOf, invalidAnswer } from "./answer.js";
import { byId, copyButton, el, show } from "./dom.js";
import { makeForm } from "./form.js";
import { startLive } from "./live.js";
import { readModels, schemaTables } from "./schema.js";

const SHOWN_MODELS = 10;
const SHOWN_FIELDS = 24;
const forms = new Map();
let models = [];
let current = null;
let live = null;

start();

async function start() {
  try {
    const openapi = await readJson("openapi.json");
    models = readModels(openapi);
    byId("made").textContent = openapi.info?.description ?? "";
  } catch (error) {
    if (error.status === 401) return askForKey();
    byId("loading").textContent = `What is served cannot be read (${error.message}).`;
    return null;
  }
  show(byId("loading"), false);
  show(byId("service"), true);
  live = startLive(() => askForKey(false), () => show(byId("metrics"), false));
  showPicker();
  showCurrent();
  live.poll();
  return null;
}

function showPicker() {
  const many = models.length > 1;
  show(byId("models"), many);
  show(byId("scope"), many);
  byId("models-title").textContent = `${models.length} models`;
  show(byId("filter"), models.length > SHOWN_MODELS);
  byId("picker").append(...models.map(({ name }) => el("a", { href: `#${encodeURIComponent(name)}` }, name)));
  byId("filter").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    for (const link of byId("picker").children) show(link, link.textContent.toLowerCase().includes(wanted));
  });
  byId("scope").addEventListener("change", showScope);
  byId("find").addEventListener("input", (event) => forms.get(current.name).find(event.target.value));
  for (const id of ["raw", "curl"]) byId(id).querySelector(".code").append(copyButton(byId(id).querySelector("pre")));
  addEventListener("hashchange", showCurrent);
}

function wanted() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return "";
  }
}

function showCurrent() {
  const name = wanted();
  const next = models.find((model) => model.name === name) ?? current ?? models[0];
  if (next === undefined || next === current) return;
  current = next;
  document.title = `${current.name} · fairlead`;
  byId("name").textContent = current.name;
  const path = el("code", {}, `POST ${new URL(predictAddress(current.name), document.baseURI).pathname}`);
  byId("facts").replaceChildren(...[...current.facts, path].map((fact) => el("li", {}, fact)));
  for (const link of byId("picker").children) {
    if (link.textContent === current.name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  byId("schema").replaceChildren(...schemaTables(current));
  byId("extra").textContent = current.forbidsOthers ? "Other keys are refused." : "Other keys are ignored.";
  showForm();
  showScope();
}

function showForm() {
  const model = current;
  if (!forms.has(model.name)) {
    forms.set(model.name, makeForm(model, (body, problems) => ask(model, body, problems), showCurl));
  }
  byId("forms").replaceChildren(forms.get(model.name).node);
  show(byId("find"), model.features.length > SHOWN_FIELDS);
  byId("find").querySelector("input").value = "";
  forms.get(model.name).find("");
  byId("result").replaceChildren(...emptyAnswer());
  show(byId("raw"), false);
  showCurl();
}

function showCurl() {
  byId("curl").querySelector("pre").textContent = curl(current.name, forms.get(current.name).body());
}

function showScope() {
  const scope = byId("scope").querySelector("input:checked").value;
  live.show(scope === "all" ? null : current.name);
}

async function ask(model, body, unreadable) {
  const form = forms.get(model.name);
  if (unreadable) {
    form.mark(unreadable);
    byId("result").replaceChildren(...invalidAnswer(unreadable.length, unreadable));
    show(byId("raw"), false);
    form.focusFirstProblem();
    return;
  }
  form.setBusy(true);
  const reply = await predict(model.name, body).catch(() => null);
  form.setBusy(false);
  if (model !== current) return;
  show(byId("raw"), reply !== null);
  if (reply === null) byId("result").replaceChildren(...failedAnswer());
  else showReply(model, form, reply);
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (!form.node.querySelector("[aria-invalid]")) byId("answer").scrollIntoView({ block: "nearest", behavior: isCalm ? "auto" : "smooth" });
}

function showReply(model, form, reply) {
  const errors = Array.isArray(reply.value?.errors) ? reply.value.errors : [];
  const problems = errors.map(({ path, expected, got }) => ({ name: featureOf(String(path)), expected, got }));
  form.mark(problems);
  byId("result").replaceChildren(...answerOf(reply, model.outputs, problems));
  byId("raw").querySelector("pre").textContent = reply.value === undefined ? reply.text : indent(reply.text);
  if (reply.status === 401) askForKey();
  else form.focusFirstProblem();
}

// Take the focus only where somebody waits for an answer, not from a poll.
function askForKey(isWaitedFor = true) {
  show(byId("loading"), false);
  if (key.get() && byId("key").hidden) refuseKey("The server did not take this key.");
  show(byId("key"), true);
  if (isWaitedFor) byId("key-value").focus();
}

function refuseKey(text) {
  byId("key-error").textContent = text;
  show(byId("key-error"), true);
}

byId("key").addEventListener("submit", async (event) => {
  event.preventDefault();
  const value = byId("key-value").value.trim();
  if (!key.isValid(value)) return refuseKey("A key is letters, digits and signs without spaces.");
  key.set(value);
  byId("key-value").value = "";
  show(byId("key-error"), false);
  show(byId("key"), false);
  if (live === null) return start();
  live.restart();
  showCurl();
  return null;
});
