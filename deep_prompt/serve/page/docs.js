// The requests and schemas of openapi.json.

import { make, request } from "./text.js";

function operation(path, method, { description, requestBody, responses }) {
  const schema = (content) => content?.content?.["application/json"]?.schema;
  return make("section", { class: "card" },
    make("h2", {}, `${method.toUpperCase()} ${path}`),
    make("p", {}, description ?? ""),
    ...json("Request", schema(requestBody)),
    ...json("Answer", schema(responses["200"])));
}

function json(title, value) {
  if (!value || Object.keys(value).length === 0) return [];
  return [make("details", {}, make("summary", {}, title),
    make("pre", { tabindex: 0 }, JSON.stringify(value, null, 2)))];
}

const { paths, components } = await request("openapi.json");
const operations = Object.entries(paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, one]) => operation(path, method, one)));
const schemas = Object.entries(components.schemas).flatMap(([name, one]) => json(name, one));
document.getElementById("docs").append(
  make("h2", {}, "Requests"), ...operations, make("h2", {}, "Schemas"), ...schemas);
