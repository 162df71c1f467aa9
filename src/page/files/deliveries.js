// Deliveries: the bytes that were sent, and the responses. Secrets were redacted before they were
// recorded.

import { DATAGRAM_BEGINS, OTLP_BEGINS } from "./dialects.js";
import { button, byId, clock, copy, count, duration, h, size } from "./elements.js";
import { backendsOf } from "./pipeline.js";
import { ask } from "./server.js";

/** Most bytes that are shown as hex. */
const MAX_HEX = 16 * 1024;
/** Every nc reads this much from a pipe at once, and sends it as one datagram. */
const MAX_NC = 8192;
/** Environment variables that hold the redacted values of these headers. */
const VARIABLES = { "x-honeycomb-team": "HONEYCOMB_API_KEY", "x-amz-security-token": "AWS_SESSION_TOKEN" };

let choose = {};
let backend = null;
let list = {};
let asHex = false;
/** The parts of the panel, and the state that each was drawn for. */
let parts = null;
let listedFor = null;
let shownFor = null;
let shownSummary = null;

export function start(chosen) {
  choose = chosen;
}

export function pick(name) {
  backend = name;
  choose.chooseDelivery(list[name]?.[0]?.id ?? null);
}

export async function refresh() {
  list = (await ask("/telemetry/deliveries")).deliveries;
}

export async function show(chosen) {
  const names = backendsOf(list);
  if (chosen.delivery) backend = chosen.delivery.slice(0, chosen.delivery.lastIndexOf("-"));
  backend = names.includes(backend) ? backend : names.find((name) => list[name].length > 0) ?? names[0];
  const shown = list[backend] ?? [];
  // The newest delivery is chosen at first. It stays chosen when others come.
  chosen.delivery ??= shown[0]?.id ?? null;
  const id = chosen.delivery;
  listed(names, shown, id);
  // A delivery that the server no longer keeps stays on view.
  const summary = shown.find((it) => it.id === id) ?? (shownSummary?.id === id ? shownSummary : undefined);
  const key = JSON.stringify([id, summary, chosen.trace, asHex]);
  if (shownFor === key) return;
  shownFor = key;
  const asked = id ? ask(`/telemetry/deliveries/${encodeURIComponent(id)}`) : null;
  const delivery = await asked?.catch((error) => ({ gone: error.message })) ?? null;
  const body = delivery?.payload ? await whole(delivery) : null;
  if (shownFor !== key) return;
  shownSummary = summary;
  if (delivery?.gone && summary) shownFor = null;
  parts.delivery.replaceChildren();
  if (delivery?.gone) parts.delivery.append(h("p", { class: "empty" }, delivery.gone));
  else if (delivery) parts.delivery.append(h("div", {}, content(delivery, body, chosen)));
}

/** Draws the backends and the deliveries of one of them. The keyboard focus is kept. */
function listed(names, shown, id) {
  if (!parts) {
    parts = {
      names: h("nav", { class: "row", "aria-label": "Backends" }),
      list: h("ol"),
      delivery: h("div", { class: "delivery" }),
    };
    byId("deliveries").append(parts.names, h("div", { class: "deliveries" }, parts.list, parts.delivery));
  }
  const key = JSON.stringify([backend, id, shown, names.map((name) => list[name].length)]);
  if (listedFor === key) return;
  listedFor = key;
  const focused = document.activeElement?.dataset.key;
  const scrolled = parts.list.scrollTop;
  parts.names.replaceChildren(...names.map((name) => {
    const properties = { "data-key": name, "aria-pressed": name === backend, onclick: () => pick(name) };
    return h("button", { type: "button", ...properties }, `${name} (${list[name].length})`);
  }));
  parts.list.replaceChildren(...shown.map((it) => row(it, it.id === id)));
  const earlier = (shown.at(-1)?.number ?? 1) - 1;
  if (earlier > 0) {
    parts.list.append(h("li", { class: "empty" }, `${earlier} earlier ones are not kept.`));
  }
  if (shown.length === 0) {
    parts.list.append(h("li", { class: "empty" },
      "Nothing was sent to this backend. The strip above shows whether it is on, or how to turn it on."));
  }
  parts.list.scrollTop = scrolled;
  if (!focused) return;
  const buttons = [...byId("deliveries").querySelectorAll("[data-key]")];
  buttons.find((it) => it.dataset.key === focused)?.focus({ preventScroll: true });
}

function row(it, isChosen) {
  const properties = { "data-key": it.id, "aria-current": isChosen, onclick: () => choose.chooseDelivery(it.id) };
  const tries = it.tries > 1 ? ` · ${it.tries} tries` : "";
  return h("li", {}, h("button", { type: "button", class: `sent ${it.end.split(" ")[0]}`, ...properties },
    h("b", {}, `#${it.number}`), " ", it.end, it.status ? ` ${it.status}` : "", h("br"),
    h("small", {}, `${clock(it.at)} · ${count(it.items, "item")} · ${size(it.bytes)}${tries}`)));
}

function content(it, body, chosen) {
  const call = it.exchanges.findLast((exchange) => exchange.body === null) ?? it.exchanges.at(-1);
  const tries = count(it.tries, "try", "tries");
  const bodyOf = (exchange) => {
    if (exchange.body) return h("pre", {}, exchange.body.text);
    return exchange === call ? payload(it, body, chosen) : h("p", { class: "dim" }, "with the same payload as below");
  };
  return [
    h("p", { class: "row" }, h("b", {}, `${it.backend} #${it.number}`),
      h("span", { class: `state ${it.end.split(" ")[0]}` }, it.end),
      h("span", {}, `${count(it.items, "item")}, ${it.payload.size} bytes, ${tries}, ${duration(it.took_ms)}`)),
    it.said ? h("p", { class: "bad" }, it.said) : null,
    it.trimmed ? h("p", {}, it.trimmed) : null,
    h("p", { class: "row copies" }, copies(it, call, body), button(asHex ? "as text" : "as hex", () => {
      asHex = !asHex;
      show(chosen);
    })),
    it.exchanges.length > 1 ? h("p", {}, `${it.exchanges.length} calls were made for it, in this order:`) : null,
    it.exchanges.length === 0 ? h("p", {}, "No call was made yet.") : null,
    it.exchanges.map((exchange) => [
      h("h3", {}, `to ${exchange.to}`),
      exchange.head ? h("pre", { class: "head" }, exchange.head) : null,
      bodyOf(exchange),
      exchange.canonical_request ? signature(exchange) : null,
      answer(exchange),
    ]),
  ];
}

/** The bytes of the payload, and their text if they are text or gzip of text. */
async function whole({ payload }) {
  if (payload.text !== undefined) return { bytes: new TextEncoder().encode(payload.text), text: payload.text };
  const bytes = Uint8Array.from(atob(payload.base64), (character) => character.charCodeAt(0));
  try {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return { bytes, text: await new Response(stream).text(), unzipped: true };
  } catch {
    return { bytes, text: null };
  }
}

function payload(it, { bytes, text, unzipped }, chosen) {
  const hash = h("p", { class: "hash" }, "sha256 ", h("code", {}, it.payload.sha256));
  if (asHex || text === null) {
    const rest = bytes.length - MAX_HEX;
    const more = rest > 0 ? h("p", {}, `${rest} more bytes; “save” has them all`) : null;
    return [h("pre", { class: "hex" }, hexOf(bytes.subarray(0, MAX_HEX))), more, hash];
  }
  const note = unzipped ? h("p", {}, `unzipped here, ${size(text.length)}; “as hex” shows the sent bytes`) : null;
  // Without the colours of a terminal; “as hex” shows them.
  const plain = text.replace(/\x1b\[[\d;]*m/g, "");
  return [note, h("pre", { class: "payload" }, marked(plain, chosen.trace)), hash];
}

/** The text, with marks on the id of the trace and on the header of a datagram. */
function marked(text, trace) {
  const spellings = trace ? [trace, `1-${trace.slice(0, 8)}-${trace.slice(8)}`] : [];
  const pattern = spellings.map((it) => it.replace(/[^a-f0-9-]/g, "")).join("|");
  const parts = pattern ? text.split(new RegExp(`(${pattern})`)) : [text];
  return parts.flatMap((part, index) => {
    if (index % 2 === 1) return h("mark", {}, part);
    if (index > 0 || !text.startsWith(DATAGRAM_BEGINS)) return part;
    const header = h("span", { class: "newline", title: "the newline that ends the header" }, DATAGRAM_BEGINS);
    return [header, part.slice(DATAGRAM_BEGINS.length)];
  });
}

function hexOf(bytes) {
  const lines = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const part = [...bytes.subarray(at, at + 16)];
    const hex = part.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const text = part.map((byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${at.toString(16).padStart(6, "0")}  ${hex.padEnd(48)} ${text}\n`);
  }
  return lines.join("");
}

function signature(exchange) {
  return h("details", {}, h("summary", {}, "the signature: Signature Version 4"),
    h("p", {}, "The canonical request: both sides write it in the same way."),
    h("pre", {}, exchange.canonical_request),
    h("p", {}, "The string to sign: its last line is the SHA-256 of the text above."),
    h("pre", {}, exchange.string_to_sign),
    h("p", {}, "HMAC-SHA256 of that, under a key made of the secret, the day, the region and the service, ",
      "is the signature in the header ", h("code", {}, "authorization"), ". The key is never shown."));
}

function answer({ answer: it, error, head }) {
  if (error) return h("p", { class: "bad" }, `no response: ${error}`);
  if (!it) return head ? null : h("p", { class: "dim" }, "This transport has no responses.");
  const rest = it.whole_size > it.body.size ? h("p", {}, `${it.whole_size} bytes in all`) : null;
  return [
    h("h3", {}, "answered ", h("small", {}, "header names in lower case, as the client keeps them")),
    h("pre", { class: "head" }, it.head, it.body.text ?? `(${it.body.size} bytes, not text)`),
    rest,
  ];
}

/** Buttons that copy or save the payload for other programs. */
function copies(it, call, { bytes, text }) {
  const found = [];
  const add = (name, make) => found.push(button(`copy ${name}`, (event) => copy(make(), event.target)));
  if (call?.head) add("as curl", () => curl(call, it, text));
  if (call?.to.startsWith("udp ")) {
    const name = bytes.length > MAX_NC ? "for bash" : "as nc";
    add(name, () => datagram(call.to.slice(4), bytes.length, text));
  }
  if (text !== null) add("the body", () => text);
  const isOtlp = text?.startsWith(OTLP_BEGINS);
  const name = isOtlp ? `otlp-${it.number}.json` : `${it.backend}-${it.number}.bin`;
  found.push(button(isOtlp ? "save as OTLP JSON file" : "save", () => {
    const url = URL.createObjectURL(new Blob([isOtlp ? text : bytes]));
    h("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }));
  return found;
}

/** A shell command that sends the text as one datagram. */
function datagram(address, size, text) {
  const at = address.lastIndexOf(":");
  const [host, port] = [address.slice(0, at).replace(/[[\]]/g, ""), address.slice(at + 1)];
  const send = size > MAX_NC
    ? `dd bs=65535 iflag=fullblock status=none > /dev/udp/${host}/${port}`
    : `nc -u -w1 ${host} ${port}`;
  return `printf '%s' ${quoted(text)} | ${send}`;
}

/** A curl command. Secrets become variables, and curl signs anew because a signature expires. */
function curl(call, it, text) {
  const headers = call.head.trimEnd().split("\r\n").slice(1).map((line) => line.split(/: (.*)/s));
  const isSigned = call.canonical_request !== null;
  const [, region, service] = call.string_to_sign?.split("\n")[2].split("/") ?? [];
  const made = ["content-length", "host", ...(isSigned ? ["authorization", "x-amz-date"] : [])];
  const query = call.head.split(" ")[1].includes("?") ? `"?$QUERY"` : "";
  const option = ([name, value]) => {
    if (!value?.endsWith(", not shown)")) return `-H ${quoted(`${name}: ${value}`)}`;
    return `-H "${name}: $${VARIABLES[name] ?? name.toUpperCase().replace(/\W/g, "_")}"`;
  };
  const options = headers.filter(([name]) => !made.includes(name) && name !== "content-encoding").map(option);
  if (isSigned) {
    options.push(`--aws-sigv4 aws:amz:${region}:${service} --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY"`);
  }
  const command = `printf '%s' ${quoted(text ?? "")} | curl -i ${quoted(call.to)}${query}`;
  return [command, ...options, "--data-binary @-"].join(" \\\n  ");
}

/** The text in single quotes, for a shell. */
function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
