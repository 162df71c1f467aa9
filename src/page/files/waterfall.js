// One trace: a tree of spans on a ruler with their log lines, and the details of the chosen span.

import { button, byId, duration, h, short } from "./elements.js";
import { backendsOf } from "./pipeline.js";
import { browserSpans } from "./server.js";

let choose = {};
let folded = new Set();
let shownFor = null;
/** True if the tree shall get the keyboard focus once it is drawn. */
let isAwaited = false;

export function start(chosen) {
  choose = chosen;
}

/** Moves the keyboard focus to the tree. */
export function focus() {
  const panel = byId("waterfall");
  const row = panel.querySelector('[data-span][aria-selected="true"]') ?? panel.querySelector("[data-span]");
  isAwaited = row === null;
  row?.focus();
}

export function show(trace, chosen, backends) {
  const panel = byId("waterfall");
  const key = JSON.stringify([trace, chosen, [...folded], browserSpans.get(chosen.trace)?.ms, states(backends)]);
  if (shownFor === key) return;
  shownFor = key;
  const hadFocus = panel.contains(document.activeElement) && document.activeElement.dataset.span !== undefined;
  isAwaited = hadFocus || (isAwaited && document.activeElement === document.body);
  if (!trace) {
    const why = chosen.trace
      ? `The trace ${chosen.trace} is no longer among the last 200, or not there yet.`
      : "Choose a request, or make one: every click in Cruddur begins a trace.";
    return panel.replaceChildren(h("p", { class: "empty" }, why));
  }
  const tree = treeOf(trace);
  const first = tree.all.find((span) => span.data) ?? tree.all[0];
  const selected = tree.all.find((span) => span.id === chosen.span) ?? first;
  const onkeydown = (event) => walk(event, tree);
  panel.replaceChildren(
    heading(trace),
    decisions(trace, selected.request ?? trace.requests[0], backends),
    h("div", { class: "tree", role: "treegrid", "aria-label": "Spans", onkeydown }, ruler(tree), rows(tree, selected)),
    details(selected, trace));
  if (isAwaited) focus();
}

function states(backends) {
  return Object.values(backends).map((backend) => [backend.state, waits(backend)]);
}

function waits(backend) {
  return backend.queued > 0 || backend.in_flight > 0;
}

function heading(trace) {
  const first = trace.requests[0];
  const earlier = `${trace.earlier} earlier requests of this trace are not shown: `
    + "a client sends the same traceparent again and again.";
  return h("header", { class: "trace-head" },
    h("h2", {}, short(first.name, 120)),
    h("p", { class: "ids" }, "trace ", h("code", { title: "W3C and OTLP" }, trace.trace_id), " = X-Ray ",
      h("code", {}, trace.xray_trace_id)),
    trace.earlier > 0 ? h("p", { class: "dim" }, earlier) : null);
}

/** For each backend: its deliveries of the trace, or why there are none. */
function decisions(trace, request, backends) {
  const known = backendsOf(backends);
  const off = known.filter((name) => backends[name].state === "off");
  const shown = known.filter((name) => !off.includes(name)).map((name) => {
    const backend = backends[name];
    const allLines = { sampled: true, sampling: "every line of its level" };
    const { sampled, sampling } = backend.unit === "lines" ? allLines : request.backends[name] ?? request;
    const isOn = backend.state === "on";
    const carried = trace.deliveries.filter((delivery) => delivery.id.startsWith(`${name}-`));
    const links = carried.map((it) => {
      const status = it.status ? ` (${it.status})` : "";
      const look = it.end.split(" ")[0];
      const mark = { delivered: "✓", refused: "✕", dropped: "✕", unconfirmed: "✕", partly: "!" }[look] ?? "…";
      const link = button(`${mark} ${it.end}: ${it.id}${status}`, () => choose.chooseDelivery(it.id));
      link.classList.add("state", look);
      return link;
    });
    let state = null;
    if (!isOn) state = backend.state;
    else if (!sampled) state = "not sampled";
    else if (carried.length === 0) state = waits(backend) ? "waits for its batch" : "not among the kept deliveries";
    return h("li", { class: isOn && sampled ? "" : "dim" }, h("b", {}, name), " ",
      state ? h("span", { class: "state" }, state) : links, " ", h("small", {}, isOn ? sampling : backend.reason));
  });
  return h("ul", { class: "decisions" }, shown,
    off.length > 0 ? h("li", { class: "dim" }, `not sent to, because off: ${off.join(", ")}`) : null);
}

/** All spans with their depth, in the order of the tree. Each is there once, even in a circle. */
function treeOf(trace) {
  const spans = [];
  for (const request of trace.requests) {
    for (const data of request.spans) {
      spans.push({ id: data.span_id, parent: data.parent_span_id, name: data.name, kind: data.kind, data, request,
        start: request.offset_ms + data.offset_ms, ms: data.duration_ms, failed: data.status === "error",
        lines: request.lines.filter((line) => line.span_id === data.span_id) });
    }
  }
  const ids = new Map(spans.map((span) => [span.id, span]));
  const browser = browserSpans.get(trace.trace_id);
  if (browser && browser.ms > 0) {
    const inner = spans.find((span) => span.parent === browser.id);
    // The two clocks differ: the inner span is put into the middle, as NTP does it.
    const ms = Math.max(browser.ms, inner?.ms ?? 0);
    const start = inner ? inner.start - (ms - inner.ms) / 2 : 0;
    const span = { id: browser.id, parent: null, name: `${browser.name}, in this browser`, kind: "browser",
      start, ms, failed: browser.status >= 500, lines: [] };
    spans.unshift(span);
    ids.set(span.id, span);
  }
  const children = (parent) => spans.filter((span) => span.parent === parent.id && span !== parent);
  const all = [];
  const seen = new Set();
  const visit = (span, depth, hidden) => {
    if (seen.has(span)) return;
    seen.add(span);
    const below = children(span);
    Object.assign(span, { depth, hidden, isParent: below.length > 0 });
    all.push(span);
    for (const child of below) visit(child, depth + 1, hidden || folded.has(span.id));
  };
  spans.filter((span) => !ids.has(span.parent)).forEach((span) => visit(span, 0, false));
  // The remaining spans are their own ancestors.
  spans.forEach((span) => visit(span, 0, false));
  const from = Math.min(...all.map((span) => span.start));
  const to = Math.max(...all.map((span) => span.start + span.ms), from + 0.001);
  return { all, from, to, orphan: (span) => span.parent !== null && !ids.has(span.parent) };
}

function ruler({ from, to }) {
  const marks = [0, 0.25, 0.5, 0.75].map((part) => {
    const mark = h("span", {}, duration((to - from) * part));
    mark.style.left = `${part * 100}%`;
    return mark;
  });
  return h("div", { class: "span-row ruler", "aria-hidden": true },
    h("span", {}, duration(to - from)), h("span", { class: "track" }, marks));
}

function rows(tree, selected) {
  return tree.all.filter((span) => !span.hidden).flatMap((span) => {
    const bar = h("span", { class: `bar ${span.kind}${span.failed ? " failed" : ""}` });
    position(bar, tree, span.start, span.ms);
    const events = (span.data?.events ?? []).map((event) => {
      const mark = h("span", { class: "event", title: event.name }, "◆");
      position(mark, tree, span.request.offset_ms + event.offset_ms, 0);
      return mark;
    });
    const isFolded = folded.has(span.id);
    const fold = span.isParent ? (isFolded ? "▸" : "▾") : "·";
    const name = h("span", { class: "span-name", role: "gridcell" },
      h("span", { class: "fold", "aria-hidden": true }, fold),
      span.failed ? h("span", { class: "bad", "aria-label": "failed" }, "✕ ") : null, short(span.name, 200),
      tree.orphan(span) ? h("small", {}, ` its parent ${short(span.parent, 16)} is the caller's`) : null);
    name.style.paddingLeft = `${Math.min(span.depth, 12) * 14 + 4}px`;
    const isSelected = span === selected;
    const onclick = (event) =>
      event.target.className === "fold" && span.isParent ? toggle(span) : choose.chooseSpan(span.id);
    const row = h("div", { class: "span-row", role: "row", "data-span": span.id, tabindex: isSelected ? 0 : -1, onclick,
      "aria-level": span.depth + 1, "aria-selected": isSelected, "aria-expanded": span.isParent ? !isFolded : null },
      name, h("span", { class: "track", role: "gridcell" }, bar, events, took(tree, span)));
    const lines = span.lines.map((line) => h("div", { class: `span-row log ${line.level.toLowerCase()}`, role: "row" },
      h("span", { class: "span-name", role: "gridcell" }, `${line.level} ${line.target}`),
      h("span", { class: "message", role: "gridcell" }, short(line.message, 2000))));
    return [row, ...lines];
  });
}

function took(tree, span) {
  const label = h("span", { class: "took" }, duration(span.ms));
  const end = (span.start + span.ms - tree.from) / (tree.to - tree.from);
  if (end > 0.75) label.classList.add("inside");
  else label.style.left = `calc(${end * 100}% + 6px)`;
  return label;
}

function position(element, { from, to }, start, ms) {
  const left = Math.min(1, Math.max(0, (start - from) / (to - from)));
  element.style.left = `${left * 100}%`;
  element.style.width = ms > 0 ? `${Math.max(0, Math.min(1 - left, ms / (to - from))) * 100}%` : "";
}

function toggle(span) {
  if (!folded.delete(span.id)) folded.add(span.id);
  if (folded.size > 500) folded = new Set();
  choose.chooseSpan(span.id);
}

/** Up and down from span to span, left and right to fold and unfold. */
function walk(event, tree) {
  const id = event.target.closest("[data-span]")?.dataset.span;
  const shown = tree.all.filter((span) => !span.hidden);
  const at = shown.findIndex((span) => span.id === id);
  if (at < 0) return;
  const span = shown[at];
  const go = (to) => to && choose.chooseSpan(to.id);
  const isOpen = span.isParent && !folded.has(span.id);
  const keys = {
    ArrowDown: () => go(shown[at + 1]),
    ArrowUp: () => go(shown[at - 1]),
    Home: () => go(shown[0]),
    End: () => go(shown.at(-1)),
    Enter: () => go(span),
    ArrowLeft: () => (isOpen ? toggle(span) : go(shown.find((parent) => parent.id === span.parent))),
    ArrowRight: () => (folded.has(span.id) ? toggle(span) : go(shown[at + 1])),
  };
  if (!keys[event.key]) return;
  event.preventDefault();
  event.stopPropagation();
  keys[event.key]();
  focus();
}

function details(span, trace) {
  if (!span.data) {
    return h("section", { class: "details" }, h("h3", {}, span.name),
      h("p", {}, "This span exists in your browser only. Its id was sent in the header ", h("code", {}, "traceparent"),
        ", so the server's span names it as its parent. It is not exported."));
  }
  const { data, request } = span;
  const status = data.status_message ? `${data.status}: ${data.status_message}` : data.status;
  const facts = [
    ["span id", data.span_id], ["parent", data.parent_span_id ?? "none: the trace begins here"],
    ["kind", data.kind], ["scope", data.scope],
    ["began", data.started_at], ["took", duration(data.duration_ms)], ["status", status],
    ["tracestate", request.trace_state || null], ["attributes dropped", data.dropped_attributes || null],
  ];
  const eventOf = ({ name, at, attributes }) =>
    [h("h4", {}, `Event: ${short(name, 100)}`), table([["at", at], ...Object.entries(attributes)])];
  return h("section", { class: "details" },
    h("h3", {}, short(data.name, 200)),
    table(facts.filter(([, value]) => value !== null)),
    h("h4", {}, "Attributes"), table(Object.entries(data.attributes)),
    Object.keys(data.metadata).length > 0 ? [h("h4", {}, "Metadata"), table(Object.entries(data.metadata))] : null,
    data.events.map(eventOf),
    h("p", { class: "row" }, button("the same span in four dialects", () => byId("tab-dialects").click(), "d"),
      h("a", { href: `/telemetry/traces/${trace.trace_id}`, target: "_blank" }, "this trace as JSON")));
}

function table(pairs) {
  if (pairs.length === 0) return h("p", { class: "empty" }, "none");
  const cell = (value) => h("td", {}, typeof value === "string" ? value : JSON.stringify(value));
  return h("table", {}, pairs.map(([key, value]) => h("tr", {}, h("th", { scope: "row" }, key), cell(value))));
}
