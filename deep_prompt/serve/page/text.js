// Texts: the server counts code points, JavaScript counts UTF-16 units.

const WORD = /[\p{L}\p{N}\p{M}]+(?:[-'’._][\p{L}\p{N}\p{M}]+)*|\S/gu;

/** The code points [start, end) of a text. */
export const slice = (text, start, end) => [...text].slice(start, end).join("");

/** The number of code points before a UTF-16 index. */
export const toPoint = (text, index) => [...text.slice(0, index)].length;

/** The words of a text with their code points. */
export function words(text) {
  return [...text.matchAll(WORD)].map((match) => {
    const start = toPoint(text, match.index);
    return { text: match[0], start, end: start + [...match[0]].length };
  });
}

/** The span of whole words that a selection inside `element` touches; null if there is none. */
export function selectedSpan(element, text) {
  const selection = getSelection();
  if (selection.rangeCount === 0 || selection.isCollapsed) return null;
  const range = selection.getRangeAt(0);
  if (!element.contains(range.commonAncestorContainer)) return null;
  const before = document.createRange();
  before.selectNodeContents(element);
  before.setEnd(range.startContainer, range.startOffset);
  const start = [...before.toString()].length;
  const end = start + [...range.toString()].length;
  const touched = words(text).filter((word) => word.start < end && start < word.end);
  if (touched.length === 0) return null;
  return { start: touched[0].start, end: touched.at(-1).end };
}

/** An element with attributes and children. Strings are text, never HTML. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Send JSON, or get it if there is no body. Throws an Error with the server's messages. */
export async function request(path, body, signal) {
  return (await send(path, body, signal, "application/json")).json();
}

/** Send JSON, and yield the name and data of each event of the answer. Throws as `request`. */
export async function* events(path, body, signal) {
  const response = await send(path, body, signal, "text/event-stream");
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const complete = (waiting + part.value).split("\n\n");
    waiting = complete.pop();
    for (const event of complete) {
      const [, name, data] = event.match(/^event: (.*)\ndata: (.*)$/);
      yield [name, JSON.parse(data)];
    }
  }
}

async function send(path, body, signal, accept) {
  const options = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  const headers = { "content-type": "application/json", accept };
  const response = await fetch(path, { ...options, headers, signal });
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  throw new Error((answer.errors ?? [response.statusText]).join("\n"));
}
