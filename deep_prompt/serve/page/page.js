// The page: its state is in the URL's hash; one request answers all tasks that are shown.

import { canCorrect, correctButton } from "./correct.js";
import { EXAMPLES } from "./examples.js";
import { makeFields, QUESTION, TEXT_KEYS } from "./fields.js";
import { attentionPlot, card } from "./results.js";
import { events, make, request, words } from "./text.js";

const ALL = "all";
const find = (id) => document.getElementById(id);
const state = { text: "", question: "", predicate: "", task: ALL, prompt: "", fade: "0.4" };
let tasks = [], fields = [], corrections = false, running = null, shown = null;

const fieldsOf = (task) => fields.find((one) => one.tasks.includes(task));
const isSelected = (task) => [ALL, task.name].includes(state.task);
const readsText = (task) => task.accepts_text || task.keys.some((key) => TEXT_KEYS.includes(key));

/** The row of a task for the form; null if something is missing (see `missing`). */
function rowOf(task) {
  if (missing(task)) return null;
  const row = { task: task.name };
  if (state.prompt) row.prompt = state.prompt;
  for (const key of task.accepts_text ? ["text", ...task.keys] : task.keys) {
    if (TEXT_KEYS.includes(key)) row[key] = state.text;
    else if (key === QUESTION) row[key] = state.question.trim();
    else if (key !== "tokens" && key !== "predicate") row[key] = task.example[key];
  }
  Object.assign(row, fieldsOf(task)?.row());
  if (task.marks_predicate) row.predicate = predicate(task);
  return row;
}

/** What a task needs from the form and has not; empty if nothing is missing. */
function missing(task) {
  if (readsText(task) && !state.text.trim()) return "Write a text, or click an example.";
  if (task.marks_predicate && predicate(task) === null) {
    return "Click the verb whose roles you want.";
  }
  const asks = task.keys.includes(QUESTION) && !state.question.trim();
  return asks ? "Ask a question about the text." : "";
}

/** The tasks; first those that suit the text, if it is one of the examples. */
function inOrder() {
  const suits = EXAMPLES.find((one) => one.text === state.text)?.suits ?? [];
  const place = ({ name }) => (suits.includes(name) ? suits.indexOf(name) : suits.length);
  return [...tasks].sort((one, other) => place(one) - place(other));
}

/** The chosen word; undefined if a task finds predicates, null if none is chosen. */
function predicate(task) {
  const [start, end] = state.predicate.split("-").map(Number);
  const word = words(state.text).find((one) => one.start === start && one.end === end);
  if (word) return { start, end };
  return task.needs_predicate ? null : undefined;
}

async function predict() {
  running?.abort();
  running = new AbortController();
  const asked = inOrder().filter(isSelected);
  const rows = asked.map(rowOf);
  const sent = rows.filter((row) => row !== null);
  writeHash();
  showCode(sent);
  find("results").setAttribute("aria-busy", true);
  try {
    if (asked.length === 1 && asked[0].generates_text && rows[0]) await write(asked[0], rows[0]);
    else await answerAll(asked, rows, sent);
    if (find("attention").open) showAttention();
  } catch (error) {
    if (error.name === "AbortError") return; // another request has begun
    status(error.message, true);
  }
  find("results").setAttribute("aria-busy", false);
}

async function answerAll(asked, rows, sent) {
  const body = { rows: sent, html: true };
  const answer = sent.length ? await request("v1/predict", body, running.signal) : null;
  const answers = [...(answer?.answers ?? [])];
  shown = asked.map((task, number) => {
    const row = rows[number];
    return [task, row, row ? answers.shift() : { missing: missing(task), text: state.text }];
  });
  status(answer ? summary(answer) : missing(asked[0]));
  draw();
}

/** Show a generated text piece by piece. */
async function write(task, row) {
  const path = `v1/tasks/${encodeURIComponent(task.name)}`;
  const show = (answer) => { shown = [[task, row, answer]]; draw(); };
  let text = "";
  status("");
  try {
    for await (const [name, data] of events(path, row, running.signal)) {
      if (name === "text") text += data.text;
      show(name === "text" ? { result: { text } } : data);
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    show({ errors: [error.message] });
  }
}

const count = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;

function summary({ tasks, passes, milliseconds }) {
  const parts = [count(tasks, "task"), count(passes, "pass", "passes")];
  return [...parts, `${Math.ceil(milliseconds)} ms`].join(", ");
}

function status(message, isError = false) {
  find("status").textContent = message;
  find("status").className = isError ? "error" : "";
}

function draw() {
  const on = { predicate: (word) => update({ predicate: `${word.start}-${word.end}` }) };
  const cards = (shown ?? []).map(([task, row, answer]) => {
    const element = card(task, row ?? answer, answer, Number(state.fade), on);
    if (corrections && answer?.result && !task.generates_text && canCorrect(row, answer.result)) {
      element.querySelector("header").append(correctButton(task, row, answer, element));
    }
    return element;
  });
  find("results").replaceChildren(...cards);
  for (const one of fields) one.errors.textContent = errorsOf(one);
}

/** What the server says against the values of a set of fields. */
function errorsOf({ tasks }) {
  const answers = (shown ?? []).filter(([task]) => tasks.includes(task));
  const messages = answers.flatMap(([, , answer]) => answer?.errors ?? []);
  return [...new Set(messages.map((text) => text.replaceAll(/^rows\[\d+\]: /gm, "")))].join("\n");
}

async function showAttention() {
  const place = find("attention").querySelector("div");
  const row = shown?.map(([, one]) => one).find((one) => one !== null);
  if (!row) return place.replaceChildren();
  try {
    const { layers } = await request("v1/attention", row);
    const note = layers.length ? `${row.task}: the mean over heads is a bar, each head a dot.`
      : "This artifact has no deep prompt.";
    const plots = layers.length ? [attentionPlot(layers)] : [];
    place.replaceChildren(make("p", { class: "muted" }, note), ...plots);
  } catch (error) {
    place.replaceChildren(make("p", { class: "error" }, error.message));
  }
}

function codeOf(language, rows) {
  const url = new URL("v1/predict", location.href.split("#")[0]).href;
  const body = JSON.stringify({ rows });
  if (language === "curl") {
    return `curl ${url} -H 'Content-Type: application/json' -d '${body.replaceAll("'", "'\\''")}'`;
  }
  return [
    "import json, urllib.request", "", `body = ${JSON.stringify(body)}`,
    "headers = {\"Content-Type\": \"application/json\"}",
    `request = urllib.request.Request(${JSON.stringify(url)}, body.encode(), headers)`,
    "for answer in json.load(urllib.request.urlopen(request))[\"answers\"]:", "    print(answer)",
  ].join("\n");
}

function showCode(rows) {
  const place = find("code").querySelector("pre");
  place.textContent = codeOf("curl", rows);
  for (const button of find("code").querySelectorAll("button")) {
    button.onclick = () => {
      place.textContent = codeOf(button.dataset.code, rows);
      navigator.clipboard?.writeText(place.textContent).then(() => status("Copied."), () => {});
    };
  }
}

function readHash() {
  const found = new URLSearchParams(location.hash.slice(1));
  for (const key of Object.keys(state)) if (found.has(key)) state[key] = found.get(key);
  for (const one of fields) one.read(found);
  if (state.task !== ALL && !tasks.some((task) => task.name === state.task)) state.task = ALL;
  if (!(Number(state.fade) >= 0 && Number(state.fade) <= 1)) state.fade = "0.4";
  return found.has("text");
}

function writeHash() {
  const pairs = [...Object.entries(state), ...fields.flatMap((one) => one.address())];
  history.replaceState(null, "", `#${new URLSearchParams(pairs)}`);
}

function update(changes) {
  Object.assign(state, changes);
  showState();
  return predict();
}

function showState() {
  for (const id of ["text", "question", "prompt", "fade"]) find(id).value = state[id];
  find("fade-value").textContent = Number(state.fade).toFixed(2);
  for (const tab of find("tabs").children) {
    const isShown = tab.dataset.task === state.task;
    tab.setAttribute("aria-selected", isShown);
    tab.tabIndex = isShown ? 0 : -1;
  }
  const selected = tasks.filter(isSelected);
  find("writing").hidden = !selected.some(readsText);
  find("asking").hidden = !selected.some((task) => task.keys.includes(QUESTION));
  for (const one of fields) one.element.hidden = !one.tasks.some(isSelected);
}

function example({ text, question, verb }) {
  const word = words(text).find((one) => one.text === verb);
  return update({ text, question, predicate: `${word.start}-${word.end}` });
}

function makeTabs() {
  const names = tasks.length > 1 ? [ALL, ...tasks.map((task) => task.name)] : [tasks[0].name];
  if (tasks.length === 1) state.task = names[0];
  find("tabs").replaceChildren(...names.map((name) => make("button", {
    role: "tab", type: "button", "data-task": name, "aria-controls": "results",
    onclick: () => update({ task: name }),
  }, name)));
  find("tabs").onkeydown = ({ key }) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
    if (!step) return;
    const next = names[(names.indexOf(state.task) + step + names.length) % names.length];
    update({ task: next });
    find("tabs").querySelector("[aria-selected=true]").focus();
  };
}

function makePrompts() {
  const deep = tasks.filter((task) => task.prompt !== null);
  const distinct = new Map(deep.map((task) => [task.prompt, task.name]));
  const names = distinct.size > 1 ? [...distinct.values()] : [];
  const others = names.map((name) => [name, `of ${name}`]);
  const choices = [["", "of its own task"], ["none", "without the prompt"], ...others];
  const options = choices.map(([value, text]) => make("option", { value }, text));
  find("prompt").replaceChildren(...options);
  find("prompt").parentElement.hidden = deep.length === 0;
}

/** A button that asks about the selected words of a result. */
function offerQuestion() {
  const button = find("ask"), selected = getSelection().toString().trim();
  const place = getSelection().anchorNode?.parentElement;
  const inResults = selected && place?.closest("#results") && !place.closest(".editor");
  button.hidden = !inResults || find("asking").hidden || selected.length > 60;
  button.textContent = `Ask about “${selected}”`;
  button.onclick = () => {
    update({ question: `What about ${selected}?` });
    button.hidden = true;
    find("question").focus();
    find("question").select();
  };
}

async function start() {
  ({ tasks, corrections } = await request("v1/tasks"));
  makeTabs();
  makePrompts();
  fields = makeFields(tasks);
  find("fields").append(...fields.map((one) => one.element));
  find("examples").append(...EXAMPLES.map((one) =>
    make("button", { type: "button", onclick: () => example(one) }, one.name)));
  find("form").onsubmit = (event) => {
    event.preventDefault();
    update({ text: find("text").value, question: find("question").value });
  };
  find("form").onkeydown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) find("form").requestSubmit();
  };
  find("prompt").onchange = (event) => update({ prompt: event.target.value });
  find("fade").oninput = (event) => {
    state.fade = event.target.value;
    showState();
    writeHash();
    draw();
  };
  find("attention").ontoggle = () => find("attention").open && showAttention();
  document.onselectionchange = offerQuestion;
  window.onhashchange = () => { readHash(); update({}); };
  return readHash() ? update({}) : example(EXAMPLES[0]);
}

start().catch((error) => status(error.message, true));
