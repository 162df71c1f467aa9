// One span in the payloads of all remote backends, side by side. Lines that state the same fact
// light up together.
//
// A format is recognised by the beginning of a payload, so this file names no backend. Its tables
// repeat on purpose what the encoders do: they teach which attribute of a span becomes which field
// of a payload.

import { byId, h, short } from "./elements.js";
import { get, lines, parse, text } from "./json.js";
import { backendsOf } from "./pipeline.js";

export const OTLP_BEGINS = '{"resourceSpans":';
export const DATAGRAM_BEGINS = '{"format":"json","version":1}\n';

/** `find(payloads, span)` returns the lines about a span. */
const FORMATS = [
  { begins: OTLP_BEGINS, find: otlp, title: "OTLP JSON",
    note: "One object of resourceSpans › scopeSpans › spans." },
  { begins: DATAGRAM_BEGINS, find: xray, title: "X-Ray document",
    note: "The segment, or a subsegment of it, as it stands in the datagram." },
  { begins: '{"logGroupName":', find: cloudwatch, title: "CloudWatch event",
    note: "The lines that were logged while this span was open." },
];

let choose = {};
let shownFor = null;

export function start(chosen) {
  choose = chosen;
  const panel = byId("dialects");
  for (const [on, off] of [["mouseover", "mouseout"], ["focusin", "focusout"]]) {
    panel.addEventListener(on, (event) => light(panel, event.target.closest?.(".fact")?.facts ?? []));
    panel.addEventListener(off, () => light(panel, []));
  }
}

function light(panel, facts) {
  for (const line of panel.querySelectorAll(".fact")) {
    line.classList.toggle("lit", line.facts.some((fact) => facts.includes(fact)));
  }
}

export function show(trace, chosen, backends) {
  const panel = byId("dialects");
  const states = Object.values(backends).map((backend) => backend.state);
  const key = JSON.stringify([trace?.trace_id, trace?.requests.length, chosen.span, states]);
  if (shownFor === key) return;
  shownFor = key;
  if (!trace) {
    return panel.replaceChildren(h("p", { class: "empty" },
      "Choose a request first: its spans are shown here as OTLP, as an X-Ray document and as CloudWatch events."));
  }
  const spans = trace.requests.flatMap((request) => request.spans.map((span) => ({ span, request })));
  const { span, request } = spans.find(({ span }) => span.span_id === chosen.span) ?? spans[0];
  const pick = h("select", { id: "dialect-span", onchange: () => choose.chooseSpan(pick.value) },
    spans.map((it) => {
      const label = `${short(it.span.name, 80)} (${it.span.span_id})`;
      return h("option", { value: it.span.span_id, selected: it.span === span }, label);
    }));
  const columns = backendsOf(request.dialects).map((name) => {
    const begin = trace.requests.flatMap(({ dialects }) => dialects[name])[0] ?? "";
    const format = FORMATS.find(({ begins }) => begin.startsWith(begins)) ?? { title: name, note: "", find: whole };
    return column(format, name, backends[name].state, format.find(request.dialects[name], span));
  });
  panel.replaceChildren(
    h("p", { class: "row" }, h("label", { for: "dialect-span" }, "span "), pick,
      h("small", {}, "point at a line, or press tab: lines with the same fact light up")),
    h("div", { class: "dialects" }, columns));
}

/** Two backends may have the same format, so the title names the backend. */
function column({ title, note }, name, state, content) {
  const unsent = state === "on" ? "" : ` This backend is ${state}: this would be sent.`;
  return h("section", {}, h("h3", {}, title === name ? title : `${title}: ${name}`), h("p", {}, note + unsent),
    content.length > 0 ? h("pre", {}, content) : h("p", { class: "empty" }, "Nothing for this span."));
}

/** Payloads in an unknown format: JSON on several lines, anything else as it is. */
function whole(payloads) {
  return payloads.flatMap((payload) => {
    const found = parse(payload);
    return found ? lines(found, {}) : [payload, "\n"];
  });
}

/** X-Ray allows no dots in keys; the fact is the same. */
const attribute = (key) => `attribute ${key.replace(/[^A-Za-z0-9_]/g, "_")}`;

function otlp(payloads, span) {
  for (const payload of payloads.map(parse)) {
    for (const resource of get(payload, "resourceSpans")?.items ?? []) {
      for (const scope of get(resource, "scopeSpans")?.items ?? []) {
        const found = get(scope, "spans")?.items.find((it) => text(get(it, "spanId")) === span.span_id);
        if (found) return lines(found, { factsOf: (path) => otlpFacts(found, path) });
      }
    }
  }
  return [];
}

const IN_OTLP = {
  traceId: "trace id", spanId: "span id", parentSpanId: "parent", name: "name", kind: "kind",
  startTimeUnixNano: "start", endTimeUnixNano: "end",
};

function otlpFacts(span, path) {
  const known = IN_OTLP[path[0]];
  if (known) return [known];
  if (path[0] === "status") return path[1] === "message" ? ["exception.message"] : ["failed"];
  const at = path.lastIndexOf("attributes");
  const key = at < 0 ? undefined : text(get(span, ...path.slice(0, at + 2), "key"));
  if (key === undefined) return [];
  return path[0] === "events" ? [key] : [attribute(key)];
}

function xray(payloads, span) {
  for (const datagram of payloads) {
    const found = segmentOf(parse(datagram.slice(DATAGRAM_BEGINS.length)), span.span_id);
    if (found) return lines(found, { factsOf: xrayFacts, skip: (path) => path[0] === "subsegments" });
  }
  return [];
}

function segmentOf(segment, id) {
  if (!segment || text(get(segment, "id")) === id) return segment;
  for (const below of get(segment, "subsegments")?.items ?? []) {
    const found = segmentOf(below, id);
    if (found) return found;
  }
  return null;
}

const IN_XRAY = {
  id: ["span id"], trace_id: ["trace id"], parent_id: ["parent"], name: ["name"], namespace: ["kind"],
  start_time: ["start"], end_time: ["end"],
  fault: ["failed", attribute("error.type")], error: ["failed"], throttle: ["failed"],
  "http.request.method": [attribute("http.request.method")],
  "http.request.url":
    ["url.path", "url.query", "url.scheme", "url.full", "server.address", "server.port"].map(attribute),
  "http.request.user_agent": [attribute("user_agent.original")],
  "http.request.client_ip": [attribute("client.address"), attribute("network.peer.address")],
  "http.response.status": [attribute("http.response.status_code")],
  "http.response.content_length": [attribute("http.response.body.size")],
};

const IN_CAUSE = {
  type: ["exception.type"], message: ["exception.message"],
  path: ["exception.stacktrace"], line: ["exception.stacktrace"],
};

function xrayFacts(path) {
  const known = IN_XRAY[path.join(".")];
  if (known) return known;
  if (path[0] === "annotations") return [attribute(path[1])];
  if (path[0] === "metadata") return [attribute(path.slice(2, 3).join()), attribute(path.slice(1, 3).join("."))];
  if (path[0] === "cause") return IN_CAUSE[path.at(-1)] ?? [];
  return [];
}

function cloudwatch(payloads, span) {
  const events = payloads.flatMap((payload) => get(parse(payload), "logEvents")?.items ?? []);
  const inside = (path, node) => (path.length === 1 && path[0] === "message" ? object(node) : null);
  const isInSpan = (event) => {
    const message = get(event, "message");
    return text(get(object(message), "span_id")) === span.span_id
      || text(message)?.includes(`span_id=${span.span_id}`);
  };
  return events.filter(isInSpan).flatMap((event) => lines(event, { inside, factsOf: cloudwatchFacts }));
}

/** The JSON object that a string holds, or null. */
function object(node) {
  const held = parse(text(node) ?? "");
  return held?.entries ? held : null;
}

const IN_LINE = { trace_id: ["trace id"], xray_trace_id: ["trace id"], span_id: ["span id"], level: ["failed"] };
const IN_MESSAGE = [
  "exception.message", "exception.stacktrace",
  ...["http.request.method", "url.path", "url.query", "url.scheme", "client.address", "http.response.status_code"]
    .map(attribute),
];

function cloudwatchFacts(path) {
  if (path[0] !== "message") return [];
  return path[1] === "message" ? IN_MESSAGE : IN_LINE[path[1]] ?? [];
}
