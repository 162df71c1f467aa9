// The keys. Every action has one, and `?` lists them.

import { byId, h } from "./elements.js";
import { FAILURES, PLACES } from "./cruddur.js";

export function start({ chooseTab, requests, waterfall }) {
  const help = byId("help");
  const KEYS = [
    ["?", "this list", () => help.open || help.showModal()],
    ["j", "the next request", () => requests.step(1)],
    ["k", "the one before", () => requests.step(-1)],
    ["x", "the next error", () => requests.step(1, true)],
    ["e", "errors first", requests.toggleErrorsFirst],
    ["/", "filter", () => byId("filter").focus()],
    ["p", "pause the list, or go on", () => byId("pause").click()],
    ["w", "waterfall; arrow keys walk through it and fold it", () => [chooseTab("waterfall"), waterfall.focus()]],
    ["d", "four dialects; tab walks through their fields", () => chooseTab("dialects")],
    ["b", "deliveries, byte for byte", () => {
      chooseTab("deliveries");
      const panel = byId("deliveries");
      (panel.querySelector("[aria-current=true]") ?? panel.querySelector("button"))?.focus();
    }],
    ...PLACES.map(([text, key, go]) => [key, `Cruddur: ${text.toLowerCase()}`, go]),
    ["c", "Cruddur: write a crud", () => byId("crud-text").focus()],
    ["s", "Cruddur: search", () => byId("search-term").focus()],
    ...FAILURES.map(([text, key, what, go]) => [key, `make a ${text}: ${what}`, go]),
  ];
  byId("keys").append(...KEYS.flatMap(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)]),
    h("dt", {}, h("kbd", {}, "esc")), h("dd", {}, "leave a field, close this list"));
  byId("help-button").addEventListener("click", () => help.showModal());

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const field = event.target.closest("input, textarea, select");
    if (field) {
      if (event.key === "Escape") field.blur();
      if (event.key === "Enter" && field.id === "crud-text" && !event.shiftKey) {
        event.preventDefault();
        byId("crud").requestSubmit();
      }
      return;
    }
    if (help.open && event.key !== "?") return;
    // Space and Enter press the button that has the focus.
    if ((event.key === " " || event.key === "Enter") && event.target.closest("button, summary")) return;
    const found = KEYS.find(([key]) => key === event.key);
    if (!found) return;
    event.preventDefault();
    found[2]();
  });
}
