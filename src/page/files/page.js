// The start of the page. It polls the status; if a number in it has changed, it asks for the new
// requests or deliveries. It keeps no request open, because one thread of the server answers all
// clients.

import { byId } from "./elements.js";
import { ask } from "./server.js";
import * as cruddur from "./cruddur.js";
import * as deliveries from "./deliveries.js";
import * as dialects from "./dialects.js";
import * as keyboard from "./keyboard.js";
import * as pipeline from "./pipeline.js";
import * as requests from "./requests.js";
import * as waterfall from "./waterfall.js";

const POLL_MS = 500;
/** Used after a call from this page, until its trace has come. */
const FAST_POLL_MS = 40;
const TABS = ["waterfall", "dialects", "deliveries"];

/** The current choice. The address of the page remembers it. */
const chosen = { trace: null, span: null, tab: "waterfall", delivery: null };
let trace = null;
let backends = {};
let deliveriesChanged = "";
let lastRequest = 0;
let startedAt = null;
let timer = 0;
let eager = 0;
let isPolling = false;

function chooseTrace(id) {
  if (chosen.trace === id) return;
  Object.assign(chosen, { trace: id, span: null });
  if (chosen.tab === "deliveries") chosen.tab = "waterfall";
  trace = null;
  show();
  refreshTrace();
}

function chooseSpan(id) {
  chosen.span = id;
  show();
}

function chooseTab(tab) {
  chosen.tab = tab;
  show();
}

function chooseDelivery(id) {
  Object.assign(chosen, { delivery: id, tab: "deliveries" });
  show();
}

/** Polls faster after a call from this page. */
function called(traceId) {
  chooseTrace(traceId);
  eager = 25;
  poll();
}

/** Asks for news. One poll at a time: two would add the same requests twice. */
async function poll() {
  if (isPolling) return;
  isPolling = true;
  clearTimeout(timer);
  const before = lastRequest;
  let isStale = false;
  try {
    const status = await ask("/telemetry/status");
    if (status.started_at !== startedAt) restarted(status);
    backends = status.backends;
    pipeline.update(status);
    const changed = JSON.stringify(Object.values(status.backends).map((backend) => backend.deliveries_changed));
    if (status.last_request !== lastRequest && !requests.paused()) {
      const list = await ask(`/telemetry/traces?since=${lastRequest}`);
      lastRequest = list.last_request;
      requests.add(list.traces);
      isStale = list.traces.some((request) => request.trace_id === chosen.trace);
      if (chosen.trace === null && list.traces.length > 0) chooseTrace(list.traces[0].trace_id);
    }
    if (changed !== deliveriesChanged) {
      deliveriesChanged = changed;
      await deliveries.refresh();
      isStale = true;
    }
    // The queues may have changed even if the trace has not.
    await (isStale ? refreshTrace() : show());
    say("");
  } catch (error) {
    say(error.message);
  }
  eager = lastRequest === before ? Math.max(0, eager - 1) : 0;
  isPolling = false;
  if (!document.hidden) timer = setTimeout(poll, eager > 0 ? FAST_POLL_MS : POLL_MS);
}

function restarted(status) {
  startedAt = status.started_at;
  lastRequest = 0;
  deliveriesChanged = "";
  requests.clear();
  const since = new Date(startedAt).toLocaleString();
  byId("about").textContent = `${status.service_name} · version ${status.version} · up since ${since}`;
}

async function refreshTrace() {
  const id = chosen.trace;
  if (id === null) return show();
  try {
    const found = await ask(`/telemetry/traces/${id}`);
    if (chosen.trace === id) trace = found;
  } catch {
    // The trace has not come yet or is no longer kept: the one on view stays.
  }
  show();
}

function show() {
  for (const tab of TABS) {
    byId(`tab-${tab}`).setAttribute("aria-selected", tab === chosen.tab);
    byId(`tab-${tab}`).tabIndex = tab === chosen.tab ? 0 : -1;
    byId(tab).hidden = tab !== chosen.tab;
  }
  requests.mark(chosen.trace);
  if (chosen.tab === "waterfall") waterfall.show(trace, chosen, backends);
  if (chosen.tab === "dialects") dialects.show(trace, chosen, backends);
  if (chosen.tab === "deliveries") deliveries.show(chosen);
  const address = new URLSearchParams(Object.entries(chosen).filter(([, value]) => value !== null));
  // Browsers refuse to write the address too often.
  if (location.hash !== `#${address}`) history.replaceState(null, "", `#${address}`);
}

function say(trouble) {
  const element = byId("trouble");
  element.hidden = trouble === "";
  if (element.textContent !== trouble) element.textContent = trouble;
}

function remembered() {
  const address = new URLSearchParams(location.hash.slice(1));
  for (const key of Object.keys(chosen)) chosen[key] = address.get(key) ?? chosen[key];
  if (!TABS.includes(chosen.tab)) chosen.tab = "waterfall";
  if (!/^[0-9a-f]{32}$/.test(chosen.trace)) chosen.trace = null;
}

remembered();
for (const tab of TABS) byId(`tab-${tab}`).addEventListener("click", () => chooseTab(tab));
byId("tabs").addEventListener("keydown", ({ key }) => {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[key];
  if (!by) return;
  chooseTab(TABS[(TABS.indexOf(chosen.tab) + by + TABS.length) % TABS.length]);
  byId(`tab-${chosen.tab}`).focus();
});
document.addEventListener("visibilitychange", () => document.hidden || poll());
byId("curl").textContent = `curl ${location.origin}/api/activities/home`;
cruddur.start(called);
requests.start(chooseTrace, poll);
pipeline.start((backend) => {
  deliveries.pick(backend);
  chooseTab("deliveries");
});
waterfall.start({ chooseSpan, chooseDelivery });
dialects.start({ chooseSpan });
deliveries.start({ chooseDelivery });
keyboard.start({ chooseTab, requests, waterfall });
poll();
