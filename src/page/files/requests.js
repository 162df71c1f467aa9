// The list of requests. Those that were not sampled are listed too, with the reason.

import { byId, clock, count, duration, h } from "./elements.js";

const MAX_ROWS = 200;

/** The newest first. */
let rows = [];
let choose = () => {};
let marked = null;
let errorsFirst = false;
let isPaused = false;

export function start(whenChosen, resume) {
  choose = whenChosen;
  byId("filter").addEventListener("input", arrange);
  byId("errors-first").addEventListener("click", toggleErrorsFirst);
  byId("pause").addEventListener("click", () => {
    togglePause();
    if (!isPaused) resume();
  });
}

export function paused() {
  return isPaused;
}

export function toggleErrorsFirst() {
  errorsFirst = !errorsFirst;
  byId("errors-first").setAttribute("aria-pressed", errorsFirst);
  arrange();
}

function togglePause() {
  isPaused = !isPaused;
  byId("pause").setAttribute("aria-pressed", isPaused);
  byId("pause").textContent = isPaused ? "paused" : "pause";
}

export function clear() {
  rows = [];
  arrange();
}

/** Adds requests, the newest first. */
export function add(list) {
  rows = [...list.map(row), ...rows].slice(0, MAX_ROWS);
  arrange();
  mark(marked);
}

export function mark(traceId) {
  marked = traceId;
  for (const { request, element } of rows) element.setAttribute("aria-current", request.trace_id === traceId);
}

/** Chooses the next request (1) or the previous (-1). `onlyErrors` skips successes. */
export function step(by, onlyErrors = false) {
  const shown = [...byId("request-list").children].map((element) => rows.find((row) => row.element === element));
  const now = shown.findIndex(({ request }) => request.trace_id === marked);
  for (let next = now + by; next >= 0 && next < shown.length; next += by) {
    const { request, element } = shown[next];
    if (onlyErrors && !bad(request)) continue;
    if (request.trace_id === marked) continue;
    element.scrollIntoView({ block: "nearest" });
    return choose(request.trace_id);
  }
}

function bad(request) {
  return request.failed || request.status >= 400;
}

function arrange() {
  const wanted = byId("filter").value.trim().toLowerCase();
  const shown = rows.filter(({ text }) => text.includes(wanted));
  if (errorsFirst) shown.sort((a, b) => bad(b.request) - bad(a.request));
  place(byId("request-list"), shown.map(({ element }) => element));
  byId("no-requests").hidden = rows.length > 0;
}

/** Moves only elements that are out of place: an element that is moved loses the focus. */
function place(list, wanted) {
  const stays = new Set(wanted);
  for (const element of [...list.children]) stays.has(element) || element.remove();
  wanted.forEach((element, index) => {
    if (list.children[index] !== element) list.insertBefore(element, list.children[index] ?? null);
  });
}

function row(request) {
  const { method, path, name, status, trace_id } = request;
  const decisions = Object.entries(request.backends);
  const all = [["OpenTelemetry", request], ...decisions];
  const left_out = all.filter(([, decision]) => !decision.sampled);
  const look = request.failed ? "failed" : status >= 400 ? "refused" : "fine";
  const target = path ?? name;
  const onclick = () => choose(trace_id);
  const element = h("li", {},
    h("button", { type: "button", class: `request ${look}`, title: `${target}\ntrace ${trace_id}`, onclick },
      h("span", { class: "mark", role: "img", "aria-label": look }, { failed: "✕", refused: "!", fine: "✓" }[look]),
      h("span", { class: "status" }, status ?? "…"),
      h("span", { class: "path" }, h("small", {}, method ?? ""), " ", target),
      h("span", { class: "took" }, duration(request.duration_ms)),
      h("span", { class: "when" }, `${clock(request.started_at)} · ${count(request.spans, "span")}`),
      left_out.map(([sampler, { sampling }]) => h("span", { class: "why" }, `${sampler}: ${sampling}`))));
  if (left_out.length > decisions.length) element.className = "unsampled";
  const text = [method, path, name, status, trace_id, request.xray_trace_id, request.sampling].join(" ").toLowerCase();
  return { request, element, text };
}
