// One span in the words of three backends, side by side. Lines that state the same fact light up together.

import { byId, h, short } from "./elements.js";
import { get, lines, parse, text } from "./json.js";

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
  for (const line of panel.querySelectorAll(".fact")) line.classList.toggle("lit", line.facts.some((fact) => facts.includes(fact)));
}

export function show(trace, chosen, backends) {
  const panel = byId("dialects");
  const states = Object.values(backends).map((backend) => backend.state);
  const key = JSON.stringify([trace?.trace_id, trace?.requests.length, chosen.span, states]);
  if (shownFor === key) return;
  shownFor = key;
  if (!trace) return panel.replaceChildren(h("p", { class: "empty" }, "Choose a request first: its spans are shown here as OTLP, as an X-Ray document and as CloudWatch events."));
  const spans = trace.requests.flatMap((request) => request.spans.map((span) => ({ span, request })));
  const { span, request } = spans.find(({ span }) => span.span_id === chosen.span) ?? spans[0];
  const pick = h("select", { id: "dialect-span", onchange: () => choose.chooseSpan(pick.value) },
    spans.map((it) => h("option", { value: it.span.span_id, selected: it.span === span }, `${short(it.span.name, 80)} (${it.span.span_id})`)));
  const said = (name, found) => {
    const state = backends[name]?.state;
    const sent = state === undefined || state === "on" ? "" : ` This backend is ${state}: it is what would be sent.`;
    return h("p", {}, found + sent);
  };
  panel.replaceChildren(
    h("p", { class: "row" }, h("label", { for: "dialect-span" }, "span "), pick, h("small", {}, "point at a line, or walk with tab: what says the same lights up")),
    h("div", { class: "dialects" },
      column("OTLP JSON", said("honeycomb", "One object of resourceSpans › scopeSpans › spans."), otlp(request, span)),
      column("X-Ray document", said("xray", "The segment, or a subsegment of it, as it stands in the datagram."), xray(request, span)),
      column("CloudWatch event", said("cloudwatch", "The lines that were logged while this span was open."), cloudwatch(request, span))));
}

function column(title, note, content) {
  return h("section", {}, h("h3", {}, title), note, content.length > 0 ? h("pre", {}, content) : h("p", { class: "empty" }, "Nothing for this span."));
}

/** X-Ray takes no dots in keys; the fact is the same. */
const attribute = (key) => `attribute ${key.replace(/[^A-Za-z0-9_]/g, "_")}`;

function otlp(request, span) {
  for (const payload of (request.dialects.honeycomb ?? []).map(parse)) {
    for (const resource of get(payload, "resourceSpans")?.items ?? []) {
      for (const scope of get(resource, "scopeSpans")?.items ?? []) {
        const found = get(scope, "spans")?.items.find((it) => text(get(it, "spanId")) === span.span_id);
        if (found) return lines(found, { factsOf: (path) => otlpFacts(found, path) });
      }
    }
  }
  return [];
}

function otlpFacts(span, path) {
  const plain = { traceId: "trace id", spanId: "span id", parentSpanId: "parent", name: "name", kind: "kind", startTimeUnixNano: "start", endTimeUnixNano: "end" };
  if (plain[path[0]]) return [plain[path[0]]];
  if (path[0] === "status") return path[1] === "message" ? ["exception.message"] : ["failed"];
  const at = path.lastIndexOf("attributes");
  const key = at < 0 ? undefined : text(get(span, ...path.slice(0, at + 2), "key"));
  if (key === undefined) return [];
  return path[0] === "events" ? [key] : [attribute(key)];
}

function xray(request, span) {
  for (const datagram of request.dialects.xray ?? []) {
    const found = segmentOf(parse(datagram.slice(datagram.indexOf("\n") + 1)), span.span_id);
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
  id: ["span id"], trace_id: ["trace id"], parent_id: ["parent"], name: ["name"], start_time: ["start"], end_time: ["end"], namespace: ["kind"],
  fault: ["failed", attribute("error.type")], error: ["failed"], throttle: ["failed"],
  "http.request.method": [attribute("http.request.method")],
  "http.request.url": ["url.path", "url.query", "url.scheme", "url.full", "server.address", "server.port"].map(attribute),
  "http.request.user_agent": [attribute("user_agent.original")],
  "http.request.client_ip": [attribute("client.address"), attribute("network.peer.address")],
  "http.response.status": [attribute("http.response.status_code")],
  "http.response.content_length": [attribute("http.response.body.size")],
};

function xrayFacts(path) {
  const known = IN_XRAY[path.join(".")];
  if (known) return known;
  if (path[0] === "annotations") return [attribute(path[1])];
  if (path[0] === "metadata") return [attribute(path.slice(2, 3).join()), attribute(path.slice(1, 3).join("."))];
  if (path[0] === "cause") return { type: ["exception.type"], message: ["exception.message"], path: ["exception.stacktrace"], line: ["exception.stacktrace"] }[path.at(-1)] ?? [];
  return [];
}

function cloudwatch(request, span) {
  const payloads = (request.dialects.cloudwatch ?? []).map(parse);
  const events = payloads.flatMap((payload) => get(payload, "logEvents")?.items ?? []);
  const inside = (path, node) => (path.at(-1) === "message" && path.length === 1 ? object(parse(text(node) ?? "")) : null);
  return events
    .filter((event) => text(get(inside(["message"], get(event, "message")), "span_id")) === span.span_id || text(get(event, "message"))?.includes(`span_id=${span.span_id}`))
    .flatMap((event) => lines(event, { inside, factsOf: cloudwatchFacts }));
}

const object = (node) => (node?.entries ? node : null);

function cloudwatchFacts(path) {
  const own = { trace_id: ["trace id"], xray_trace_id: ["trace id"], span_id: ["span id"], level: ["failed"] };
  if (path[0] !== "message") return [];
  if (path[1] !== "message") return own[path[1]] ?? [];
  return ["exception.message", "exception.stacktrace", ...["http.request.method", "url.path", "url.query", "url.scheme", "client.address", "http.response.status_code"].map(attribute)];
}
