// Other web pages in a real browser: what they can read, and who still may look.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { launch } from "./chromium.mjs";
import { start } from "./program.mjs";

const NAMES = ["evil.example", "backend.example"];
const OPEN = "[console]\nenabled = false\n[page]\nallow_remote = true\n";
/** Something that only the traces contain. */
const SECRET = "a-search-that-nobody-else-may-see";

let browser;
before(async () => {
  const rules = NAMES.map((name) => `MAP ${name} 127.0.0.1`).join(",");
  browser = await launch([`--host-resolver-rules=${rules}`]);
});
after(() => browser.close());

/** A web server that is not ours. `port` 0 takes a free one. */
async function webServer(port = 0) {
  const server = createServer((_, response) => {
    response.writeHead(200, { "content-type": "text/html", connection: "close" }).end("<!doctype html><p>kittens");
  });
  await new Promise((done) => server.listen(port, "127.0.0.1", done));
  const end = () => new Promise((done) => (server.closeAllConnections(), server.close(done)));
  return { port: server.address().port, end };
}

async function withPage(work) {
  const context = await browser.newContext();
  try {
    const page = await context.newPage();
    page.setDefaultTimeout(8000);
    await work(page);
  } finally {
    await context.close();
  }
}

/** A program with one trace in it. */
async function withTrace(options) {
  const program = await start(options);
  await fetch(`${program.url}/api/activities/search?term=${SECRET}`);
  return program;
}

/** Watches the responses to a page, with those that Chromium withholds from it. Returns a function that waits for the
 *  status of the response to a URL. */
async function watchStatuses(page) {
  const statuses = new Map();
  page.on("response", (response) => statuses.set(response.url(), response.status()));
  const session = await page.context().newCDPSession(page);
  await session.send("Network.enable");
  // The two events of one request come in any order.
  const [urls, codes] = [new Map(), new Map()];
  const note = (map, requestId, value) => {
    map.set(requestId, value);
    if (urls.has(requestId) && codes.has(requestId)) statuses.set(urls.get(requestId), codes.get(requestId));
  };
  session.on("Network.requestWillBeSent", ({ requestId, request }) => note(urls, requestId, request.url));
  session.on("Network.responseReceivedExtraInfo", ({ requestId, statusCode }) => note(codes, requestId, statusCode));
  return async (url) => {
    for (let i = 0; i < 400 && !statuses.has(url); i++) await new Promise((done) => setTimeout(done, 20));
    return statuses.get(url);
  };
}

/** What a script in the page gets from a URL. */
const read = (page, url, options = {}) =>
  page.evaluate(async ([url, options]) => {
    try {
      const response = await fetch(url, options);
      return { status: response.status, text: await response.text() };
    } catch (error) {
      return { error: String(error) };
    }
  }, [url, options]);

for (const [what, toml] of [["is open to other machines", OPEN], ["is not", "[console]\nenabled = false\n"]]) {
  test(`a page whose name is bound anew to this machine reads nothing, if the program ${what}`, async () => {
    await withPage(async (page) => {
      const attacker = await webServer();
      await page.goto(`http://evil.example:${attacker.port}/`);
      await attacker.end();
      // From here on the name leads to the program. The page is still there, and of the same origin.
      const program = await withTrace({ toml, port: attacker.port });
      try {
        const headers = { "X-Forwarded-Host": "localhost", "X-Forwarded-For": "127.0.0.1" };
        for (const options of [{}, { headers }]) {
          for (const path of ["/telemetry/traces", "/telemetry/deliveries", "/telemetry/status", "/"]) {
            const { status, text } = await read(page, path, options);
            assert.equal(status, 403, `${path}: ${text}`);
            assert.ok(!text.includes(SECRET), path);
          }
        }
        const { text } = await read(page, "/telemetry/traces");
        if (toml === OPEN) assert.match(text, /the host name evil\.example; add the name to hosts under \[page\]/);
      } finally {
        await program.end();
      }
    });
  });
}

test("a page elsewhere gets no data into its scripts, images and frames, and its link to the page works", async () => {
  const attacker = await webServer();
  const program = await withTrace({ toml: OPEN });
  // The browser takes localhost for trustworthy, and marks requests to it.
  const url = program.url.replace("127.0.0.1", "localhost");
  try {
    await withPage(async (page) => {
      await page.goto(`http://evil.example:${attacker.port}/`);
      const statusOf = await watchStatuses(page);
      assert.match((await read(page, `${url}/telemetry/traces`)).error, /Failed to fetch/);
      assert.deepEqual(await read(page, `${url}/telemetry/traces?no-cors`, { mode: "no-cors" }), { status: 0, text: "" });
      await page.evaluate(async (url) => {
        for (const [tag, path] of [["script", "traces?script"], ["img", "traces?img"], ["iframe", "traces?frame"]]) {
          const element = document.createElement(tag);
          const settled = new Promise((done) => (element.onload = element.onerror = done));
          element.src = `${url}/telemetry/${path}`;
          document.body.append(element);
          await settled;
        }
      }, url);
      const asked = ["traces", "traces?no-cors", "traces?script", "traces?img", "traces?frame"];
      for (const path of asked) assert.equal(await statusOf(`${url}/telemetry/${path}`), 403, path);
      // A link is no more than a link: the page opens, and its own requests are its own.
      await page.evaluate((url) => {
        const link = document.createElement("a");
        link.href = url;
        link.textContent = "traces";
        document.body.append(link);
      }, `${url}/`);
      await page.getByText("traces").click();
      await page.locator("#request-list .request").first().waitFor();
      assert.equal(await statusOf(`${url}/`), 200);
    });
  } finally {
    await program.end();
    await attacker.end();
  }
});

test("the page works under the port of a container and the host of BACKEND_URL, and the front end reads the API", async () => {
  const frontEnd = await webServer();
  const port = await webServer();
  const env = { FRONTEND_URL: `http://localhost:${frontEnd.port}`, BACKEND_URL: `http://backend.example:${port.port}` };
  await port.end();
  const program = await withTrace({ toml: OPEN, env, port: port.port });
  try {
    await withPage(async (page) => {
      for (const host of ["localhost", "127.0.0.1", "backend.example"]) {
        await page.goto(`http://${host}:${port.port}/`);
        await page.locator("#request-list .request").first().waitFor();
      }
      await page.goto(env.FRONTEND_URL);
      const { status, text } = await read(page, `http://localhost:${port.port}/api/activities/home`);
      assert.equal(status, 200);
      assert.ok(text.startsWith("["), text);
    });
  } finally {
    await program.end();
    await frontEnd.end();
  }
});
