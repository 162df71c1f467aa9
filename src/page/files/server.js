// Asking the server: quietly about its telemetry, and as a traced client of the application.

/** The spans that began in this page, by trace id: `{ id, name, ms, status }`. */
export const browserSpans = new Map();

const MOST_SPANS = 200;
const PATIENCE = 10_000;

/** GET of JSON about telemetry. The server traces none of these. */
export async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) }).catch(() => {
    throw new Error("the server does not answer; is cruddur still running?");
  });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.message ?? `${path} answered ${answer.status}`);
  return body;
}

/** A call of the application. The trace begins here, so the browser's span is the parent of the server's. */
export async function call(method, path, body) {
  const traceId = newTraceId();
  const span = { id: hex(8), name: `${method} ${path}`, ms: 0, status: 0 };
  const headers = { traceparent: `00-${traceId}-${span.id}-03` };
  if (body !== undefined) headers["content-type"] = "application/json";
  browserSpans.set(traceId, span);
  if (browserSpans.size > MOST_SPANS) browserSpans.delete(browserSpans.keys().next().value);
  const began = performance.now();
  try {
    const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
    const text = await answer.text();
    span.status = answer.status;
    return { traceId, status: answer.status, body: parsed(text) };
  } finally {
    span.ms = performance.now() - began;
  }
}

/** Four bytes of time, then chance: an id that W3C and X-Ray both take. */
function newTraceId() {
  return Math.floor(Date.now() / 1000).toString(16).padStart(8, "0") + hex(12);
}

function hex(bytes) {
  return Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
