// Cards with the answers of tasks.

import { make, words } from "./text.js";

const percent = (value) => `${(100 * value).toFixed(1)} %`;
const base = (label) => label.replace(/^[CR]-/, "");

/** The card of a task. `on.predicate(word)` is called for a click on a word. */
export function card(task, row, answer, fade, on) {
  const body = make("div");
  if (answer.missing) body.append(make("p", { class: "muted" }, answer.missing));
  else if (answer.errors) body.append(make("p", { class: "error" }, answer.errors.join("\n")));
  else if (task.marks_predicate) body.append(...roleNotes(answer));
  else if (task.generates_text) body.append(make("pre", {}, answer.result.text));
  else if (answer.result.entities ?? answer.result.slots) body.append(marked(answer.html, fade));
  else body.append(marked(answer.html, 0), ...options(answer.result));
  if (answer.cut) body.append(make("p", { class: "muted" }, cutNote(answer.cut)));
  if (task.marks_predicate && row.text) body.prepend(roles(task, row, answer, fade, on));
  const about = make("header", {}, make("h2", {}, task.name), make("p", {}, facts(task)));
  return make("section", { class: "card", "data-task": task.name }, about, body);
}

const cutNote = (cut) =>
  `The model did not read all of it: ${Object.entries(cut).map(([event, n]) => `${event}: ${n}`).join(", ")}.`;

function facts(task) {
  const parts = [task.type.replaceAll("_", " ")];
  if (task.test) {
    const { metric, value, interval } = task.test;
    const range = interval ? ` (${interval[0].toFixed(1)} to ${interval[1].toFixed(1)})` : "";
    parts.push(`test ${metric.toUpperCase()} ${value.toFixed(1)}${range}`);
  }
  parts.push(task.calibrated ? "calibrated" : "not calibrated");
  return parts.join(" · ");
}

/** The server's HTML of spans; color by probability, and faded below `fade`. */
function marked(html, fade) {
  const block = make("div");
  block.innerHTML = html; // the server escapes all text
  for (const mark of block.querySelectorAll("mark[title]")) {
    const score = Number(mark.title.slice(mark.title.lastIndexOf(" ")));
    mark.style.backgroundColor = withAlpha(mark.style.backgroundColor, 0.1 + 0.45 * score);
    mark.classList.toggle("faded", score < fade);
    mark.tabIndex = 0;
  }
  return block;
}

const withAlpha = (color, alpha) => color.replace(/rgba?\((\d+, \d+, \d+).*/, `rgba($1, ${alpha})`);

/** The words of a sentence as buttons, and under them a bar for each argument of a predicate. */
function roles(task, row, answer, fade, on) {
  const structures = answer?.result ? answer.result.structures ?? [answer.result] : [];
  const columns = words(row.text);
  const lines = structures.map((structure) => {
    const itself = { ...structure, role: "V", score: structure.score ?? 1 };
    return cells(task, [itself, ...structure.arguments], columns, fade);
  });
  const shown = columns.map((word, number) => make("div", {}, make("button", {
    type: "button",
    class: structures.some((one) => overlaps(one, word)) ? "predicate" : null,
    title: "show the roles of this word",
    onclick: () => on.predicate(word),
  }, word.text), ...lines.map((line) => line[number])));
  return make("div", { class: "roles", role: "group", "aria-label": "Words" }, ...shown);
}

const overlaps = (one, word) => one.start < word.end && word.start < one.end;

/** One cell for each word, in the color of its argument. The first cell has the role. */
function cells(task, parts, columns, fade) {
  const owners = columns.map((word) => parts.find((part) => overlaps(part, word)));
  return owners.map((part, number) => {
    if (!part) return make("span");
    const isFirst = owners[number - 1] !== part;
    const title = `${part.role} ${part.score.toFixed(2)}`;
    const cell = make("span", { title }, isFirst ? part.role : "");
    if (isFirst) cell.tabIndex = 0;
    const alpha = part.score < fade ? 25 : Math.round(30 + 120 * part.score);
    const color = task.colors[base(part.role)] ?? "#888888";
    cell.style.backgroundColor = color + alpha.toString(16).padStart(2, "0");
    cell.classList.toggle("first", isFirst);
    cell.classList.toggle("last", owners[number + 1] !== part);
    return cell;
  });
}

function roleNotes(answer) {
  const found = answer.result.structures;
  return found?.length === 0 ? [make("p", { class: "muted" }, "No predicate was found.")] : [];
}

/** The best options of an answer with their probabilities, for results that have some. */
function options(result) {
  if (!("no_answer" in result) && !result.probabilities) return [];
  const spans = (result.spans ?? []).slice(0, 5).map((span) => [span.text, span.probability]);
  const list = "no_answer" in result
    ? [["no answer", result.no_answer], ...spans]
    : Object.entries(result.probabilities);
  const best = result.answer === "" ? "no answer" : result.answer ?? result.label ?? result.choice;
  list.sort((one, other) => other[1] - one[1]);
  return [make("ul", { class: "options" }, ...list.map(([text, probability]) =>
    make("li", { class: text === best ? "best" : null },
      make("span", { title: text }, text),
      make("meter", { value: probability, "aria-label": percent(probability) }),
      make("span", { class: "number" }, percent(probability)))))];
}

/** A plot of the attention to the prompt: a bar per layer, and a dot per head. */
export function attentionPlot(layers) {
  const [width, height, left] = [Math.max(160, 44 * layers.length + 36), 130, 30];
  const y = (share) => 8 + (height - 28) * (1 - share);
  const parts = [0, 0.5, 1].flatMap((share) => [
    svg("line", { x1: left, x2: width, y1: y(share), y2: y(share) }),
    svg("text", { x: 0, y: y(share) + 3 }, `${100 * share}%`),
  ]);
  layers.forEach(({ layer, heads }, number) => {
    const [x, mean] = [left + 8 + 44 * number, heads.reduce((a, b) => a + b) / heads.length];
    parts.push(svg("rect", { x, y: y(mean), width: 28, height: y(0) - y(mean) },
      svg("title", {}, `layer ${layer}: ${percent(mean)}`)));
    parts.push(...heads.map((share) => svg("circle", { cx: x + 14, cy: y(share), r: 2 })));
    parts.push(svg("text", { x: x + 10, y: height - 4 }, String(layer)));
  });
  const label = "Share of attention on the prompt by layer; dots are heads";
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, role: "img", "aria-label": label },
    ...parts);
}

function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
