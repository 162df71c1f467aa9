// Helpers that build elements. Data of clients becomes text, never markup: nothing here parses
// HTML.

/** `h("a", { href: "/", onclick: f }, "text", child)`. Null, undefined and false are left out. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("aria-")) element.setAttribute(name, value);
    else if (value === false) continue;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  const isShown = (child) => child !== null && child !== undefined && child !== false;
  element.append(...children.flat(Infinity).filter(isShown));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** A button. Its title names the key that does the same. */
export function button(text, onclick, key) {
  return h("button", { type: "button", onclick, title: key ? `${text} (${key})` : null }, text);
}

/** 0.21 ms, 12.3 ms, 1.25 s */
export function duration(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  return `${ms.toFixed(ms >= 100 ? 0 : ms >= 10 ? 1 : 2)} ms`;
}

/** 512 B, 2.1 kB */
export function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 1e6 ? `${(bytes / 1000).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(2)} MB`;
}

/** 1 item, 2 items */
export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

/** The local time of day with milliseconds. */
export function clock(rfc3339) {
  const date = new Date(rfc3339);
  if (isNaN(date)) return "";
  return `${date.toLocaleTimeString([], { hour12: false })}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

/** now, 5 min ago, 2 days ago */
export function ago(rfc3339) {
  const minutes = (Date.now() - Date.parse(rfc3339)) / 60_000;
  if (!(minutes >= 1)) return "now";
  if (minutes < 60) return `${Math.floor(minutes)} min ago`;
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ago`;
  return `${Math.floor(minutes / 1440)} ${minutes < 2880 ? "day" : "days"} ago`;
}

/** The beginning of a long text. */
export function short(text, most) {
  return text.length > most ? `${text.slice(0, most)}…` : text;
}

/** Copies text, also if the browser gives this page no clipboard. */
export async function copy(text, from) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = h("textarea", { class: "off-screen" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  from.dataset.text ??= from.textContent;
  from.textContent = "copied";
  setTimeout(() => (from.textContent = from.dataset.text), 1000);
}
