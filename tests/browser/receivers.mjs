// Loopback receivers for the three wires. They keep every body to the byte.

import { createSocket } from "node:dgram";
import { createServer } from "node:http";

/** A receiver of OTLP over HTTP. Any other status than 200 refuses the traces. */
export function otlp(status = 200) {
  return listen((_, answer) => answer(status, { partialSuccess: {} }));
}

/** CloudWatch Logs. The stream is missing at first, as on a new account. */
export function cloudwatch() {
  let exists = false;
  return listen((request, answer) => {
    const operation = request.headers["x-amz-target"].split(".")[1];
    if (operation === "PutLogEvents" && !exists) {
      const message = "The specified log stream does not exist.";
      return answer(400, { __type: "ResourceNotFoundException", message });
    }
    exists ||= operation === "CreateLogStream";
    answer(200, {});
  });
}

/** A daemon that receives segments. It has no sampling rules. */
export async function xray() {
  const received = [];
  const socket = createSocket("udp4");
  socket.on("message", (bytes) => received.push({ body: bytes }));
  await new Promise((done) => socket.bind(0, "127.0.0.1", done));
  return { address: `127.0.0.1:${socket.address().port}`, received, close: () => socket.close() };
}

async function listen(respond) {
  const received = [];
  const server = createServer((request, response) => {
    const parts = [];
    request.on("data", (part) => parts.push(part));
    request.on("end", () => {
      received.push({ headers: request.headers, body: Buffer.concat(parts) });
      respond(request, (status, body) => {
        response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
      });
    });
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    received,
    close: () => (server.closeAllConnections(), server.close()),
  };
}
