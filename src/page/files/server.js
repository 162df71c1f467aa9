// Calls of the server: for its telemetry, untraced, and of the application, traced.

/** The spans that began in this page, by trace id: `{ id, name, ms, status }`. */
export const browserSpans = new Map();

const MAX_SPANS = 200;
const TIMEOUT_MS = 10_000;

/** Gets JSON about telemetry, in an untraced request. */
export async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) }).catch(() => {
    throw new Error("no response; is cruddur still running?");
  });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.message ?? `HTTP ${answer.status} from ${path}`);
  return body;
}

/** Calls the application. The browser's span begins the trace. */
export async function call(method, path, body) {
  const traceId = newTraceId();
  const span = { id: hex(8), name: `${method} ${path}`, ms: 0, status: 0 };
  const headers = { traceparent: `00-${traceId}-${span.id}-03` };
  if (body !== undefined) headers["content-type"] = "application/json";
  browserSpans.set(traceId, span);
  if (browserSpans.size > MAX_SPANS) browserSpans.delete(browserSpans.keys().next().value);
  const began = performance.now();
  try {
    // `JSON.stringify(undefined)` is undefined: then fetch sends no body.
    const answer = await fetch(path, { method, headers, body: JSON.stringify(body) });
    const text = await answer.text();
    span.status = answer.status;
    return { traceId, status: answer.status, body: parsed(text) };
  } finally {
    span.ms = performance.now() - began;
  }
}

/** Four bytes of time and twelve random bytes: valid for W3C and X-Ray. */
function newTraceId() {
  return Math.floor(Date.now() / 1000).toString(16).padStart(8, "0") + hex(12);
}

function hex(bytes) {
  const random = crypto.getRandomValues(new Uint8Array(bytes));
  return Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
