// JSON as it was written. `JSON.parse` would lose the spelling of numbers and round those of more
// than 53 bits. So this parser keeps each token; only the blanks between tokens are new.

import { h } from "./elements.js";

const TOKEN = /[{}[\],:]|"(?:[^"\\]|\\.)*"|[^\s{}[\],:"]+/g;

/** `{ entries: [{ key, value }] }`, `{ items: [value] }` or `{ raw }`; null if it is no JSON. */
export function parse(text) {
  const tokens = text.match(TOKEN) ?? [];
  let at = 0;
  const value = () => {
    const token = tokens[at++];
    if (token === "{") {
      const entries = [];
      while (tokens[at] !== "}") {
        const key = JSON.parse(tokens[at++]);
        expect(":");
        entries.push({ key, value: value() });
        if (tokens[at] !== "}") expect(",");
      }
      at++;
      return { entries };
    }
    if (token === "[") {
      const items = [];
      while (tokens[at] !== "]") {
        items.push(value());
        if (tokens[at] !== "]") expect(",");
      }
      at++;
      return { items };
    }
    if (token === undefined || "]},:".includes(token)) throw new SyntaxError("no value");
    return { raw: token };
  };
  const expect = (token) => {
    if (tokens[at++] !== token) throw new SyntaxError(`no ${token}`);
  };
  try {
    const whole = value();
    return at === tokens.length ? whole : null;
  } catch {
    return null;
  }
}

/** The value under a path of keys; undefined if there is none. */
export function get(node, ...path) {
  const step = (node, key) =>
    typeof key === "number" ? node?.items?.[key] : node?.entries?.find((entry) => entry.key === key)?.value;
  return path.reduce(step, node);
}

/** The text of a string, or any other scalar as it was spelled. */
export function text(node) {
  if (node?.raw === undefined) return undefined;
  return node.raw.startsWith('"') ? JSON.parse(node.raw) : node.raw;
}

/**
 * Lines of a value: one for each scalar, or for each short object in a list. `factsOf(path)` names
 * the facts that a scalar states, `skip(path)` leaves a list folded, and `inside(path, node)` may
 * return the node that a string holds.
 */
export function lines(node, { factsOf = () => [], skip = () => false, inside = () => null }) {
  const out = [];
  const line = (depth, facts, ...content) => {
    const states = facts.length > 0;
    const properties = states ? { class: "line fact", tabindex: 0 } : { class: "line" };
    const element = h("span", properties, "  ".repeat(depth), content, "\n");
    element.facts = facts;
    out.push(element);
  };
  const walk = (node, depth, path, before, after) => {
    if (node.raw !== undefined) {
      const held = inside(path, node);
      if (!held) return line(depth, factsOf(path), before, scalar(node), after);
      line(depth, [], before, h("i", {}, "a string that holds"));
      return walk(held, depth + 1, path, [], after);
    }
    const [open, close] = node.entries ? ["{", "}"] : ["[", "]"];
    const parts = node.entries ?? node.items.map((value, key) => ({ key, value }));
    const short = typeof path.at(-1) === "number" ? flat(node, path, factsOf) : null;
    if (short) return line(depth, short.facts, before, short.content, after);
    if (parts.length === 0) return line(depth, [], before, open + close, after);
    if (skip(path)) {
      const note = h("i", {}, ` ${parts.length} more, each a span of its own `);
      return line(depth, [], before, open, note, close, after);
    }
    line(depth, [], before, open);
    parts.forEach(({ key, value }, index) => {
      const name = node.entries ? keyed(key) : [];
      walk(value, depth + 1, [...path, key], name, index < parts.length - 1 ? "," : "");
    });
    line(depth, [], close, after);
  };
  walk(node, 0, [], [], "");
  return out;
}

/** Most characters of an object on one line. */
const MAX_FLAT = 160;

/** A short object of objects and scalars only, on one line; null for any other. */
function flat(node, path, factsOf) {
  const content = [];
  const facts = [];
  let length = 0;
  const put = (node, path) => {
    if (node.raw !== undefined) {
      length += node.raw.length;
      facts.push(...factsOf(path));
      content.push(scalar(node));
    } else if (node.entries) {
      content.push("{");
      node.entries.forEach(({ key, value }, index) => {
        length += key.length + 6;
        content.push(index > 0 ? ", " : "", keyed(key));
        put(value, [...path, key]);
      });
      content.push("}");
    } else {
      length = Infinity;
    }
  };
  put(node, path);
  return length <= MAX_FLAT ? { content, facts: [...new Set(facts)] } : null;
}

function scalar(node) {
  return h("span", { class: node.raw.startsWith('"') ? "string" : "number" }, node.raw);
}

function keyed(key) {
  return [h("span", { class: "key" }, JSON.stringify(key)), ": "];
}
