// The editor of a card: a person corrects spans, an answer or a label, and sends the right ones.

import { make, request, selectedSpan, slice } from "./text.js";

/** Whether the editor knows the kind of a result: spans of a text, an answer, or a label. */
export const canCorrect = (row, result) =>
  "text" in row || "no_answer" in result || "probabilities" in result;

/** A button "wrong?" that opens the editor of an answer in its card. */
export function correctButton(task, row, answer, place) {
  return make("button", {
    type: "button",
    class: "link",
    onclick: (event) => {
      event.target.hidden = true;
      place.append(editor(task, row, answer.result, () => (event.target.hidden = false)));
    },
  }, "wrong?");
}

function editor(task, row, result, closed) {
  const box = make("div", { class: "editor" });
  const annotation = "no_answer" in result
    ? answerEditor(box, row, result)
    : result.probabilities ? optionEditor(box, result) : spanEditor(box, task, row, result);
  const note = make("p", { class: "muted", role: "status" });
  const send = async () => {
    try {
      await request("v1/corrections", { ...bare(row), ...annotation() });
      box.replaceChildren(make("p", { class: "muted", role: "status" }, "Thank you. It is saved."));
    } catch (error) {
      note.textContent = error.message;
    }
  };
  const cancel = () => {
    box.remove();
    closed();
  };
  box.append(make("div", { class: "bar" },
    make("button", { type: "button", class: "primary", onclick: send }, "Send correction"),
    make("button", { type: "button", onclick: cancel }, "Cancel")), note);
  return box;
}

const bare = ({ prompt, ...row }) => row;

const INTENT = "intent:"; // the prefix of the intents among the labels

/** Spans with labels: remove them, or select words and add a label. And the intent, if any. */
function spanEditor(box, task, row, result) {
  const found = result.entities ?? result.slots
    ?? (result.structures?.[0] ?? result).arguments ?? [];
  let spans = found.map(({ label, role, start, end }) => ({ label: label ?? role, start, end }));
  const chips = make("div", { class: "chips" });
  const text = make("p", { class: "text" }, row.text);
  const label = make("select", { "aria-label": "Label" },
    ...task.labels.filter((name) => name !== "V" && !name.startsWith(INTENT))
      .map((name) => make("option", {}, name)));
  const intent = result.intent === undefined ? null : intentSelect(task, result);
  const draw = () => chips.replaceChildren(...spans.map((span) => make("button", {
    type: "button",
    title: "remove",
    onclick: () => { spans = spans.filter((other) => other !== span); draw(); },
  }, `${span.label}: ${slice(row.text, span.start, span.end)} ×`)));
  const add = () => {
    const span = selectedSpan(text, row.text);
    if (!span) return;
    spans = spans.filter((other) => other.end <= span.start || span.end <= other.start);
    spans.push({ label: label.value, ...span });
    draw();
  };
  box.append(
    make("p", { class: "muted" }, "Remove wrong spans; select words and add their label."),
    text, chips, make("div", { class: "bar" }, label,
      make("button", { type: "button", onclick: add }, "Add the selection")), intent ?? "");
  draw();
  const predicate = result.position === undefined ? {} : {
    predicate: { start: result.start, end: result.end },
  };
  return () => ({ ...predicate, ...(intent && { intent: intent.value }), spans });
}

function intentSelect(task, result) {
  const intents = task.labels.filter((name) => name.startsWith(INTENT));
  const select = make("select", { "aria-label": "Intent" },
    ...intents.map((name) => make("option", {}, name.slice(INTENT.length))));
  select.value = result.intent;
  return select;
}

/** The right answer: selected words, or none. */
function answerEditor(box, row, result) {
  let answer = result.answer === "" ? null : { start: result.start, end: result.end };
  const shown = make("p", {});
  const text = make("p", { class: "text" }, row.context);
  const draw = () => {
    const chosen = answer && slice(row.context, answer.start, answer.end);
    shown.textContent = chosen === null ? "Right answer: no answer" : `Right answer: ${chosen}`;
  };
  const choose = (span) => { answer = span; draw(); };
  box.append(
    make("p", { class: "muted" }, "Select the right answer in the text."), text, shown,
    make("div", { class: "bar" },
      make("button", {
        type: "button",
        onclick: () => choose(selectedSpan(text, row.context) ?? answer),
      }, "Take the selection"),
      make("button", { type: "button", onclick: () => choose(null) }, "No answer")));
  draw();
  return () => ({
    answers: answer === null ? [] : [
      { text: slice(row.context, answer.start, answer.end), answer_start: answer.start },
    ],
  });
}

/** The right label of a text, or the right choice. */
function optionEditor(box, result) {
  const select = make("select", { "aria-label": "Right answer" },
    ...Object.keys(result.probabilities).map((name) => make("option", {}, name)));
  select.value = result.label ?? result.choice;
  box.append(make("p", { class: "muted" }, "Choose the right one."), select);
  return () => (result.choice === undefined
    ? { label: select.value } : { answers: [select.value] });
}
