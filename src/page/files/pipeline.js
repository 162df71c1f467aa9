// The strip: for every backend its state, its queue and its counts.

import { byId, h } from "./elements.js";

const ENDS = Object.entries({ delivered: "", stored: "", refused: "bad", unconfirmed: "bad", dropped: "bad",
  sampled_out: "dim", not_sent: "dim" });

const cards = new Map();
/** Names of the backends, in the order of the program. */
let order = [];
let choose = () => {};

/** Calls `whenChosen(backend)` for each click on a backend. */
export function start(whenChosen) {
  choose = whenChosen;
}

export function update(status) {
  order = status.backend_order;
  set(byId("requests-total"), String(status.requests));
  for (const name of order) {
    if (!cards.has(name)) {
      cards.set(name, card(name));
      byId("pipeline").append(cards.get(name).element);
    }
    cards.get(name).update(status.backends[name]);
  }
  list(byId("findings"), status.findings);
}

/** The backends that `object` has a key for, in order. */
export function backendsOf(object) {
  return order.filter((name) => name in object);
}

function card(name) {
  const state = h("span", { class: "state" });
  const queue = h("meter", { min: 0, "aria-label": `queue of ${name}` });
  const waits = h("span", { class: "waits" });
  const counts = h("span", { class: "counts" });
  const why = h("span", { class: "why" });
  const findings = h("span", { class: "findings" });
  const element = h("button", { type: "button", class: "backend", onclick: () => choose(name) },
    h("span", { class: "row" }, h("b", {}, name), state, waits), queue, counts, why, findings);
  return {
    element,
    update(it) {
      const failing = it.failing_since !== null;
      element.dataset.state = failing ? "failing" : it.state;
      element.title = `${it.endpoint}\n${it.reason}\nsampling: ${it.sampling}`;
      set(state, failing ? "failing" : it.state);
      queue.max = it.queue_capacity;
      queue.high = it.queue_capacity * 0.8;
      queue.value = it.queued;
      const flush = it.next_flush_ms === null ? "" : `, sent in ${(it.next_flush_ms / 1000).toFixed(1)} s`;
      const flight = it.in_flight > 0 ? `, ${it.in_flight} in flight` : "";
      set(waits, it.state === "on" ? `${it.queued} of ${it.queue_capacity} ${it.unit} queued${flush}${flight}` : "");
      const key = JSON.stringify([it.deliveries, ENDS.map(([end]) => it[end])]);
      if (counts.dataset.key !== key) {
        counts.dataset.key = key;
        const shown = ENDS.filter(([end]) => it[end] > 0 || (end === "delivered" && it.state === "on"));
        const parts = shown.map(([end, look]) =>
          h("span", { class: look }, h("b", {}, it[end]), ` ${end.replace("_", " ")} `));
        if (it.state === "on") {
          const batches = it.deliveries === 1 ? " batch" : " batches";
          parts.push(h("span", { class: "dim" }, h("b", {}, it.deliveries), batches));
        }
        counts.replaceChildren(...parts);
      }
      const problem = failing || it.dropped + it.refused + it.unconfirmed > 0 ? it.last_error?.text : null;
      set(why, problem ?? (it.state === "on" ? it.endpoint : it.reason));
      const disk = it.spool;
      const stored = disk?.items + disk?.expired + disk?.lost > 0 ? [{ severity: "warning", text: disk.text }] : [];
      list(findings, [...stored, ...it.findings]);
    },
  };
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Errors and warnings in full, notes under the pointer. */
function list(element, findings) {
  const key = JSON.stringify(findings);
  if (element.dataset.key === key) return;
  element.dataset.key = key;
  const line = ({ severity, text }) =>
    h("span", { class: `finding ${severity}`, title: text }, `${severity}: ${text}`);
  element.replaceChildren(...findings.map(line));
}
