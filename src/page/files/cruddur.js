// A small client of the Cruddur API. Each of its calls begins a trace.

import { ago, byId, button, h, short } from "./elements.js";
import { call } from "./server.js";

const MAX_LENGTH = 280;
const TTLS = ["7-days", "30-days", "3-days", "1-day", "12-hours", "3-hours", "1-hour"];
const ME = "andrewbrown";

/** A button for each place: its text, its key, and its action. */
export const PLACES = [
  ["Home", "h", () => read("/api/activities/home", activities)],
  ["Notifications", "n", () => read("/api/activities/notifications", activities)],
  ["Messages", "m", () => read("/api/message_groups", groups)],
  ["Profile", "u", () => profile(ME)],
];
/** A button for each failure: its text, its key, the cause, and its action. */
export const FAILURES = [
  ["404", "4", "a uuid that does not exist", () => read("/api/activities/no-such-uuid", activities)],
  ["422", "2", "a crud without a word in it", () => write("/api/activities", { message: "", ttl: "7-days" })],
  ["500", "5", "a panic in a handler", () => read("/api/fail", activities)],
];

let called = () => {};

/** Calls `whenCalled(traceId)` after every call of the API. */
export function start(whenCalled) {
  called = whenCalled;
  const places = PLACES.map(([text, key, go]) => button(text, go, key));
  const failures = FAILURES.map(([text, key, what, go]) => {
    const failure = button(text, go, key);
    failure.title = `make a ${text}: ${what} (${key})`;
    failure.className = "failure";
    return failure;
  });
  byId("places").append(...places, h("span", { class: "failures" }, "make it fail:", failures));
  byId("crud-ttl").append(...TTLS.map((ttl) => h("option", { value: ttl }, ttl.replace("-", " "))));
  byId("crud-text").addEventListener("input", count);
  byId("crud").addEventListener("submit", (event) => {
    event.preventDefault();
    crud();
  });
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    read(`/api/activities/search?${new URLSearchParams({ term: byId("search-term").value })}`, activities);
  });
  count();
}

async function crud() {
  const text = byId("crud-text");
  const written = await write("/api/activities", { message: text.value, ttl: byId("crud-ttl").value });
  if (!written) return;
  text.value = "";
  count();
  byId("feed").prepend(activity(written));
}

function count() {
  const left = MAX_LENGTH - [...byId("crud-text").value].length;
  byId("crud-count").textContent = left;
  byId("crud-count").classList.toggle("bad", left < 0);
}

function profile(handle) {
  return read(`/api/activities/@${encodeURIComponent(handle)}`, activities);
}

/** Sends a GET and shows the response if it is a success. */
async function read(path, show) {
  const found = await make("GET", path);
  if (found) byId("feed").replaceChildren(...show(found));
}

/** Returns the body of a successful response, otherwise null. */
function write(path, body) {
  return make("POST", path, body);
}

/** Sends a request and prints its result under the form. */
async function make(method, path, body) {
  const said = byId("said");
  try {
    const answer = await call(method, path, body);
    const well = answer.status === 200;
    const why = Array.isArray(answer.body) ? answer.body.join(", ") : answer.body?.message ?? String(answer.body);
    said.textContent = `${method} ${short(path, 60)}: ${answer.status}${well ? "" : ` ${why}`}`;
    said.className = well ? "" : "bad";
    called(answer.traceId);
    return well ? answer.body : null;
  } catch {
    said.textContent = `${method} ${path}: no response; is cruddur still running?`;
    said.className = "bad";
    return null;
  }
}

function activities(list) {
  return list.length === 0 ? [h("p", { class: "empty" }, "Nothing here.")] : list.map(activity);
}

function activity(it) {
  const replies = h("div", { class: "replies" }, (it.replies ?? []).map(activity));
  const form = h("form", { class: "row", hidden: true },
    h("input", { "aria-label": "Reply", placeholder: "reply" }), h("button", {}, "Reply"));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const field = form.querySelector("input");
    const reply = await write(`/api/activities/${encodeURIComponent(it.uuid)}/reply`, { message: field.value });
    if (!reply) return;
    replies.append(activity(reply));
    field.value = "";
    form.hidden = true;
  });
  const answer = button("reply", () => {
    form.hidden = !form.hidden;
    if (!form.hidden) form.querySelector("input").focus();
  });
  return h("article", {},
    h("header", {}, h("b", {}, it.display_name || it.handle), " ",
      button(`@${it.handle}`, () => profile(it.handle)),
      h("time", { datetime: it.created_at, title: it.created_at }, ago(it.created_at))),
    h("p", {}, it.message),
    it.reply_to_activity_uuid
      ? null
      : h("footer", {}, `♥ ${it.likes_count ?? 0} · ↺ ${it.reposts_count ?? 0} · `, answer),
    form, replies);
}

function groups(list) {
  return list.map(({ display_name, handle }) => {
    const open = () => read(`/api/messages/@${encodeURIComponent(handle)}`, (found) => talk(handle, found));
    return h("article", {}, h("header", {}, h("b", {}, display_name), " ", button(`@${handle}`, open)));
  });
}

function talk(handle, messages) {
  const form = h("form", { class: "row" },
    h("input", { "aria-label": `Message to ${handle}`, placeholder: `to ${handle}` }), h("button", {}, "Send"));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const field = form.querySelector("input");
    const sent = await write("/api/messages", { message: field.value, user_receiver_handle: handle });
    if (!sent) return;
    form.before(message(sent));
    field.value = "";
  });
  return [...messages.map(message), form];
}

function message(it) {
  return h("article", {}, h("header", {}, h("b", {}, it.display_name)), h("p", {}, it.message));
}
