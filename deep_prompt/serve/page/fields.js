// Fields of the form for what tasks read besides the page's text and question, made from the kinds
// of their keys.

import { make } from "./text.js";

export const TEXT_KEYS = ["text", "context", "source"], QUESTION = "question";
const KINDS = ["text", "name", "texts"]; // those that a person can type

/** The sets of fields of tasks. Tasks with the same keys and the same example share a set. */
export function makeFields(tasks) {
  const sets = new Map();
  for (const task of tasks) {
    const keys = ownKeys(task);
    const { kinds, example, values } = task;
    const id = JSON.stringify(keys.map((key) => [key, kinds[key], example[key], values[key]]));
    if (sets.has(id)) sets.get(id).tasks.push(task);
    else if (keys.length) sets.set(id, new Fields(task, keys));
  }
  const made = [...sets.values()];
  for (const fields of made) fields.draw();
  return made;
}

function ownKeys({ kinds, accepts_text }) {
  const others = [...TEXT_KEYS, QUESTION, ...(accepts_text ? ["tokens"] : [])];
  return Object.keys(kinds).filter((key) => KINDS.includes(kinds[key]) && !others.includes(key));
}

const words = (key) => key.replaceAll("_", " ");

/** A field for each text, and for lists one per item: several lists have the same turns. */
class Fields {
  constructor(task, keys) {
    this.tasks = [task];
    this.lists = keys.filter((key) => task.kinds[key] === "texts");
    this.texts = keys.filter((key) => !this.lists.includes(key));
    this.example = Object.fromEntries(keys.map((key) => [key, [task.example[key] ?? ""].flat()]));
    this.values = structuredClone(this.example);
    this.errors = make("p", { class: "error", role: "status" });
    this.element = make("fieldset");
  }

  /** The values for a row. An empty text that a row may lack is left out. */
  row() {
    const { keys } = this.tasks[0];
    const texts = this.texts.map((key) => [key, this.values[key][0]]);
    const lists = this.lists.map((key) => [key, [...this.values[key]]]);
    const sent = texts.filter(([key, text]) => keys.includes(key) || text.trim());
    return Object.fromEntries([...sent, ...lists]);
  }

  /** Take the values from the page's address, or else from the example. */
  read(address) {
    const allowed = (key) => this.tasks[0].values[key];
    for (const key of Object.keys(this.values)) {
      const found = address.getAll(this.name(key))
        .filter((value) => !allowed(key) || allowed(key).includes(value));
      this.values[key] = found.length ? found : [...this.example[key]];
    }
    const turns = Math.max(0, ...this.lists.map((key) => this.values[key].length));
    for (const key of this.lists) {
      this.values[key] = Array.from({ length: turns }, (_, turn) => this.values[key][turn] ?? "");
    }
    this.draw();
  }

  /** The pairs for the page's address: values that are not the example's. */
  address() {
    if (JSON.stringify(this.values) === JSON.stringify(this.example)) return [];
    return Object.entries(this.values).flatMap(([key, texts]) =>
      texts.map((text) => [this.name(key), text]));
  }

  name(key) {
    return `${this.tasks[0].name}.${key}`;
  }

  draw() {
    const { keys } = this.tasks[0];
    const texts = this.texts.map((key) =>
      this.control(key, 0, keys.includes(key) ? words(key) : `${words(key)} (optional)`));
    const turns = (this.values[this.lists[0]] ?? []).map((_, turn) => this.turn(turn));
    const add = this.lists.length ? [this.addButton()] : [];
    const names = this.tasks.map((task) => task.name).join(", ");
    this.element.replaceChildren(
      make("legend", {}, `Input of ${names}`), ...texts, ...turns, ...add, this.errors);
  }

  control(key, place, label) {
    const field = this.input(key);
    field.value = this.values[key][place];
    field.oninput = () => { this.values[key][place] = field.value; };
    return make("label", {}, label, field);
  }

  input(key) {
    const { kinds, values } = this.tasks[0];
    if (values[key]) {
      return make("select", {}, ...values[key].map((value) => make("option", { value }, value)));
    }
    return kinds[key] === "name"
      ? make("input", { autocomplete: "off", spellcheck: "false" })
      : make("textarea", { rows: 1, spellcheck: "false" });
  }

  turn(turn) {
    const remove = () => {
      for (const key of this.lists) this.values[key].splice(turn, 1);
      this.draw();
      this.element.querySelector("button.add").focus();
    };
    const noun = this.lists.length > 1 ? "turn" : words(this.lists[0]);
    const label = `Remove ${noun} ${turn + 1}`;
    return make("div", { class: "turn" },
      ...this.lists.map((key) => this.control(key, turn, `${words(key)} ${turn + 1}`)),
      make("button", { type: "button", "aria-label": label, title: label, onclick: remove }, "×"));
  }

  addButton() {
    const add = () => {
      for (const key of this.lists) this.values[key].push("");
      this.draw();
      this.element.querySelector(".turn:last-of-type textarea").focus();
    };
    const text = this.lists.length > 1 ? "Add a turn" : `Add to ${words(this.lists[0])}`;
    return make("button", { type: "button", class: "add", onclick: add }, text);
  }
}
