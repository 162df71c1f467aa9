// The page in a real browser, against the real binary: every button and every key. The bytes on the
// page are compared with those that loopback receivers got. `UPDATE_GOLDEN=1` renews the picture in
// the README.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";

import { launch } from "./chromium.mjs";
import { pictures, readmePicture, start } from "./program.mjs";
import * as receivers from "./receivers.mjs";

const KEY = "a-key-that-nobody-else-may-ever-see-0123456789";
const SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const QUERY = "api-key=in-the-query";
const TOKEN = "IQoJb3JpZ2luX2VjEXAMPLETOKEN==";

/** Errors that Chromium logs for responses which a test causes: a status, or a server that it has ended. */
const EXPECTED = new RegExp("^Failed to load resource: (the server responded with a status of|"
  + "net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|EMPTY_RESPONSE))");

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser.close());

/** Opens the page of a fresh server. Errors in the page and requests to other hosts fail the test. */
async function withPage(options, work, other = undefined) {
  const { viewport = { width: 1440, height: 900 }, colorScheme = "light" } = options;
  const permissions = ["clipboard-read", "clipboard-write"];
  const context = await browser.newContext({ viewport, colorScheme, acceptDownloads: true, permissions });
  const page = await context.newPage();
  page.setDefaultTimeout(8000);
  const began = performance.now();
  const program = await start(options);
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(String(error.stack)));
  page.on("console", (message) => {
    if (message.type() === "error" && !EXPECTED.test(message.text())) wrong.push(message.text());
  });
  page.on("request", (request) => {
    const isOurs = [program.url, other, "blob:"].some((origin) => origin && request.url().startsWith(origin));
    if (!isOurs) wrong.push(`a request left the origin: ${request.url()}`);
  });
  try {
    await page.goto(program.url);
    await work(page, program, began);
    assert.deepEqual(wrong, []);
  } finally {
    await context.close();
    await program.end();
  }
}

const quiet = "[console]\nenabled = false\n";
const press = (page, name) => page.locator("#cruddur").getByRole("button", { name, exact: true }).click();
const requests = (page) => page.locator("#request-list .request");
const listed = (page, count) =>
  page.waitForFunction((count) => document.querySelectorAll("#request-list .request").length === count, count);
const answered = (page, count) =>
  page.waitForFunction((text) => document.querySelector("#requests-total").textContent === text, String(count));
const tooWide = (page) => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
const waterfall = (page) => page.locator("#waterfall [data-span]");
const run = promisify(execFile);
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");
const json = async (url) => (await fetch(url)).json();

test("one click leads to a waterfall, with no setting touched", async () => {
  await withPage({}, async (page, _, began) => {
    const opened = performance.now();
    await press(page, "Home");
    await page.getByText("home-activities-mock-data").first().waitFor();
    const now = performance.now();
    const [start, click, both] = [opened - began, now - opened, now - began].map((ms) => `${ms.toFixed(0)} ms`);
    console.log(`start of the program to page: ${start}; click to waterfall: ${click}; together: ${both}`);
    assert.equal(await waterfall(page).count(), 3);
    assert.match(await waterfall(page).nth(0).textContent(), /in this browser/);
    assert.match(await waterfall(page).nth(1).textContent(), /GET \/api\/activities\/home/);
    assert.match(await page.locator(".log").first().textContent(), /200 OK/);
  });
});

test("the browser's span is the parent of the server's", async () => {
  await withPage({ toml: quiet }, async (page, { url }) => {
    const sent = page.waitForRequest((request) => request.url().endsWith("/home"));
    await press(page, "Home");
    const [, traceId, spanId, flags] = (await sent).headers().traceparent.split("-");
    await waterfall(page).first().waitFor();
    const trace = await json(`${url}/telemetry/traces/${traceId}`);
    assert.equal(trace.requests[0].spans[0].parent_span_id, spanId);
    assert.equal(flags, "03");
    // Its first four bytes are the time, so X-Ray takes the id too.
    assert.ok(Math.abs(parseInt(traceId.slice(0, 8), 16) - Date.now() / 1000) < 60);
  });
});

test("every button of Cruddur does what it says and makes a request", async () => {
  await withPage({ toml: quiet }, async (page) => {
    let count = 0;
    const made = async (path) => {
      await listed(page, ++count);
      assert.ok((await requests(page).first().textContent()).includes(path), path);
    };
    const feed = page.locator("#feed");
    await press(page, "Home");
    await made("/api/activities/home");
    await press(page, "Notifications");
    await made("/api/activities/notifications");
    await press(page, "Profile");
    await made("/api/activities/@andrewbrown");
    await feed.getByRole("button", { name: "@andrewbrown" }).click();
    await made("/api/activities/@andrewbrown");
    await page.locator("#search-term").fill("cloud & co");
    await press(page, "Search s");
    await made("/api/activities/search");
    await press(page, "Messages");
    await made("/api/message_groups");
    await feed.getByRole("button", { name: "@worf" }).click();
    await made("/api/messages/@worf");
    await feed.getByPlaceholder("to worf").fill("Qapla!");
    await feed.getByRole("button", { name: "Send" }).click();
    await made("/api/messages");
    await feed.getByText("Qapla!").waitFor();
    await page.locator("#crud-text").fill("Hello from the page");
    await press(page, "Crud c");
    await made("/api/activities");
    const crud = feed.locator("article", { hasText: "Hello from the page" });
    await crud.getByRole("button", { name: "reply" }).click();
    await crud.getByPlaceholder("reply").fill("And hello back");
    await crud.getByRole("button", { name: "Reply" , exact: true }).click();
    await made("/reply");
    await crud.getByText("And hello back").waitFor();
    for (const status of ["404", "422", "500"]) {
      await press(page, status);
      await made(status);
      await page.locator("#said", { hasText: status }).waitFor();
    }
    await page.getByText("this route fails on purpose").first().waitFor();
    assert.equal(await page.locator("#waterfall .bar.failed").count() > 0, true);
    await page.locator("#crud-text").fill("x".repeat(281));
    assert.equal(await page.locator("#crud-count").textContent(), "-1");
  });
});

test("filter, errors first and pause arrange the list", async () => {
  await withPage({ toml: quiet }, async (page, { url }) => {
    for (const path of ["home", "notifications", "no-such-uuid", "home"]) await fetch(`${url}/api/activities/${path}`);
    await requests(page).nth(3).waitFor();
    await page.locator("#errors-first").click();
    assert.match(await requests(page).first().textContent(), /404/);
    await page.locator("#errors-first").click();
    assert.match(await requests(page).first().textContent(), /200/);
    await page.locator("#filter").fill("notif");
    assert.equal(await requests(page).count(), 1);
    await page.locator("#filter").fill("");
    await page.locator("#pause").click();
    await fetch(`${url}/api/activities/home`);
    const seen = (await json(`${url}/telemetry/status`)).last_request;
    await answered(page, seen);
    assert.equal(await requests(page).count(), 4);
    await page.locator("#pause").click();
    await requests(page).nth(4).waitFor();
  });
});

test("unsampled requests are greyed, with the reason", async () => {
  await withPage({ toml: quiet, env: { OTEL_TRACES_SAMPLER: "always_off" } }, async (page) => {
    await press(page, "Home");
    const row = page.locator("#request-list .unsampled").first();
    await row.waitFor();
    assert.match(await row.textContent(), /not sampled: the sampler treats all traces alike/);
  });
});

test("one fact lights up in all dialects", async () => {
  await withPage({ toml: quiet }, async (page) => {
    await press(page, "500");
    await waterfall(page).nth(2).waitFor();
    await page.locator("#tab-dialects").click();
    const columns = page.locator("#dialects section");
    assert.equal(await columns.count(), 4);
    const lit = async (column) => {
      const lines = await columns.nth(column).locator(".lit").allTextContents();
      return lines.map((line) => line.trim());
    };
    await columns.nth(0).locator(".fact", { hasText: "traceId" }).hover();
    const id = (await lit(0))[0].match(/[0-9a-f]{32}/)[0];
    assert.deepEqual(await lit(1), [`"trace_id": "1-${id.slice(0, 8)}-${id.slice(8)}",`]);
    assert.deepEqual(await lit(2), await lit(0), "X-Ray takes the same OTLP");
    assert.equal((await lit(3)).length, 2, "trace_id and xray_trace_id");
    await columns.nth(1).locator(".fact", { hasText: '"status": 500' }).hover();
    assert.match((await lit(0)).join(), /http\.response\.status_code.*500/);
    await columns.nth(1).locator(".fact", { hasText: "http_route" }).hover();
    assert.match((await lit(0)).join(), /"http\.route"/);
    await columns.nth(0).locator(".fact", { hasText: "startTimeUnixNano" }).hover();
    assert.match((await lit(1)).join(), /start_time/);
    // Numbers are shown as they are spelled on the wire, not as JavaScript would round them.
    assert.match(await columns.nth(0).textContent(), /"startTimeUnixNano": "\d{19}"/);
    // With the keyboard too, and for another span.
    await page.locator("#dialect-span").selectOption({ index: 1 });
    await columns.nth(0).locator(".fact", { hasText: "exception.message" }).focus();
    assert.match((await lit(1)).join(), /this route fails on purpose/);
    assert.match((await lit(3)).join(), /this route fails on purpose/);
  });
});

test("the bytes that are shown are the bytes that three receivers got", async () => {
  const [otlp, cloudwatch, xray] = [await receivers.otlp(), await receivers.cloudwatch(), await receivers.xray()];
  const table = (name) => `[${name}]\nenabled = true\nschedule_delay = 100\n`;
  const toml = ["honeycomb", "xray", "cloudwatch"].map(table).join("");
  const env = {
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `${otlp.url}/v1/traces?${QUERY}`,
    HONEYCOMB_API_KEY: KEY,
    AWS_XRAY_DAEMON_ADDRESS: xray.address,
    AWS_REGION: "us-east-1",
    AWS_ENDPOINT_URL_CLOUDWATCH_LOGS: cloudwatch.url,
    AWS_ACCESS_KEY_ID: "AKIAIOSFODNN7EXAMPLE",
    AWS_SECRET_ACCESS_KEY: SECRET,
    AWS_SESSION_TOKEN: TOKEN,
    AWS_EC2_METADATA_DISABLED: "true",
  };
  try {
    await withPage({ toml, env }, async (page) => {
      await press(page, "500");
      await page.locator("#waterfall .decisions button", { hasText: "cloudwatch" }).waitFor();
      for (const [backend, receiver] of [["honeycomb", otlp], ["xray", xray], ["cloudwatch", cloudwatch]]) {
        await page.locator("#tab-waterfall").click();
        await page.locator("#waterfall .decisions button", { hasText: backend }).click();
        const shown = page.locator("#deliveries pre.payload");
        await shown.waitFor();
        await page.locator(".delivery", { hasText: `${backend} #1` }).waitFor();
        const text = await shown.evaluate((element) => element.textContent);
        const hashes = receiver.received.map(({ body }) => sha256(body));
        assert.ok(hashes.includes(sha256(text)), `${backend}: ${sha256(text)} is none of ${hashes}`);
        assert.equal(await page.locator("#deliveries .hash code").textContent(), sha256(text));
        console.log(`${backend}: ${Buffer.byteLength(text)} bytes, sha256 ${sha256(text)}, shown and received`);
        await page.getByRole("button", { name: "as hex" }).click();
        const hex = await page.locator("#deliveries pre.hex").evaluate((element) => element.textContent);
        const bytes = Buffer.from(hex.split("\n").map((line) => line.slice(8, 56).replaceAll(" ", "")).join(""), "hex");
        assert.equal(sha256(bytes), sha256(text), "and in hex");
        await page.getByRole("button", { name: "as text" }).click();
        const everything = await page.content();
        for (const secret of [KEY, SECRET, TOKEN, QUERY]) assert.ok(!everything.includes(secret));
        // Copies work in a shell: without its secret, which is a variable.
        const copyAs = { honeycomb: "copy as curl", xray: "copy as nc", cloudwatch: "copy as curl" }[backend];
        await page.getByRole("button", { name: copyAs }).click();
        const copied = await page.evaluate(() => navigator.clipboard.readText());
        const part = {
          honeycomb: '"?$QUERY"', xray: "nc -u -w1 127.0.0.1", cloudwatch: "--aws-sigv4 aws:amz:us-east-1:logs",
        }[backend];
        assert.ok(copied.startsWith("printf '%s' '{") && copied.includes(part), copied);
        // Without nc, in the way in which a datagram too large for it is copied.
        const bash = `dd bs=65535 iflag=fullblock status=none > /dev/udp/${xray.address.replace(":", "/")}`;
        const command = backend === "xray" ? copied.replace(/nc .*/, bash) : copied;
        const before = receiver.received.length;
        await run("bash", ["-c", command], { env: { ...env, QUERY, PATH: process.env.PATH } });
        while (receiver.received.length === before) await new Promise((done) => setTimeout(done, 20));
        assert.equal(sha256(receiver.received.at(-1).body), sha256(text), "the copy sends the same bytes");
        if (backend === "honeycomb") assert.equal(receiver.received.at(-1).headers["x-honeycomb-team"], KEY);
        if (backend === "cloudwatch") {
          assert.match(receiver.received.at(-1).headers.authorization, /x-amz-security-token/);
        }
        if (backend === "honeycomb") {
          const download = page.waitForEvent("download");
          await page.getByRole("button", { name: "save as OTLP JSON file" }).click();
          const saved = (await (await download).createReadStream()).toArray();
          assert.equal(sha256(Buffer.concat(await saved)), sha256(text));
        }
        if (backend === "cloudwatch") {
          assert.match(await page.locator("#deliveries").textContent(), /calls were made for it/);
          await page.locator("#deliveries details").last().locator("summary").click();
          const signature = await page.locator("#deliveries details").last().textContent();
          assert.match(signature, /x-amz-target:Logs_20140328\.PutLogEvents[\s\S]*AWS4-HMAC-SHA256/);
        }
      }
      await page.locator("#tab-waterfall").click();
      for (const place of ["Notifications", "404", "Messages", "Home"]) await press(page, place);
      await listed(page, 5);
      await requests(page).filter({ hasText: "/api/fail" }).click();
      await page.locator("#waterfall .decisions button", { hasText: "honeycomb" }).waitFor();
      await page.locator("#pause").hover();
      await page.screenshot({ path: join(pictures, "desk-light.png") });
      if (process.env.UPDATE_GOLDEN) copyFileSync(join(pictures, "desk-light.png"), readmePicture);
    });
  } finally {
    for (const receiver of [otlp, cloudwatch, xray]) receiver.close();
  }
});

test("two processes make one trace, and the page of either shows its part", async () => {
  const callee = await start({ toml: quiet });
  try {
    await withPage({ toml: quiet, env: { NOTIFICATIONS_URL: callee.url } }, async (page) => {
      await press(page, "Notifications");
      const calls = waterfall(page).filter({ has: page.locator(".bar.client") });
      await calls.waitFor();
      const id = await page.locator(".ids code").first().textContent();
      const client = await calls.getAttribute("data-span");
      await page.goto(`${callee.url}/#trace=${id}`);
      await waterfall(page).first().waitFor();
      assert.match(await waterfall(page).first().textContent(), new RegExp(`its parent ${client} is the caller's`));
    }, callee.url);
  } finally {
    await callee.end();
  }
});

test("a trace that waits for its batch is said to wait, and a backend that is on is not said to be off", async () => {
  const otlp = await receivers.otlp();
  try {
    const toml = `${quiet}[honeycomb]\nenabled = true\nschedule_delay = 60000\n`;
    await withPage({ toml, env: { OTEL_EXPORTER_OTLP_ENDPOINT: otlp.url, HONEYCOMB_API_KEY: KEY } }, async (page) => {
      await press(page, "Home");
      await page.locator("#waterfall .decisions", { hasText: "waits for its batch" }).waitFor();
      await page.keyboard.press("d");
      await page.reload();
      await page.locator(".backend").first().waitFor();
      const notes = page.locator("#dialects section p");
      await notes.nth(1).filter({ hasText: "is off" }).waitFor();
      assert.doesNotMatch(await notes.first().textContent(), /is off/);
    });
  } finally {
    otlp.close();
  }
});

test("the outcome of a delivery decides the colour and the mark of its badge", async () => {
  for (const [status, badge, role] of [
    [200, "✓ delivered: honeycomb-1 (200)", "--good"],
    [401, "✕ refused: honeycomb-1 (401)", "--bad"],
  ]) {
    const otlp = await receivers.otlp(status);
    try {
      const toml = `${quiet}[honeycomb]\nenabled = true\nschedule_delay = 50\n`;
      const env = { OTEL_EXPORTER_OTLP_ENDPOINT: otlp.url, HONEYCOMB_API_KEY: KEY };
      await withPage({ toml, env }, async (page) => {
        await press(page, "Home");
        const shown = page.locator("#waterfall .decisions button", { hasText: badge });
        await shown.waitFor();
        const colours = (element, role) => {
          const probe = element.appendChild(document.createElement("i"));
          probe.style.color = `var(${role})`;
          const expected = getComputedStyle(probe).color;
          probe.remove();
          return [getComputedStyle(element).color, expected];
        };
        const [colour, expected] = await shown.evaluate(colours, role);
        assert.equal(colour, expected);
      });
    } finally {
      otlp.close();
    }
  }
});

test("what is looked at stays, whatever else comes", async () => {
  const otlp = await receivers.otlp();
  try {
    const toml = `${quiet}[honeycomb]\nenabled = true\nschedule_delay = 50\n`;
    const env = { OTEL_EXPORTER_OTLP_ENDPOINT: otlp.url, HONEYCOMB_API_KEY: KEY };
    await withPage({ toml, env }, async (page, { url }) => {
      const more = async (count) => {
        for (let i = 0; i < count; i++) await fetch(`${url}/api/activities/notifications`);
        const { last_request } = await json(`${url}/telemetry/status`);
        await answered(page, last_request);
      };
      const focused = () => page.evaluate(() => document.activeElement.textContent);
      await press(page, "Home");
      await page.locator("#waterfall .decisions button").waitFor();
      await requests(page).first().focus();
      const row = await focused();
      await more(1);
      await requests(page).nth(1).waitFor();
      assert.equal(await focused(), row);
      await page.locator("#waterfall .decisions button").click();
      await page.locator("#deliveries pre.payload").waitFor();
      await page.getByRole("button", { name: "copy as curl" }).dblclick();
      // It says that it has copied, twice, and then what it does again.
      await page.getByRole("button", { name: "copied" }).waitFor();
      await page.getByRole("button", { name: "copy as curl" }).waitFor();
      await page.getByRole("button", { name: "copy as curl" }).focus();
      await more(1);
      await page.locator("#deliveries .sent").nth(1).waitFor();
      assert.equal(await page.evaluate(() => document.activeElement.dataset.text), "copy as curl");
      await page.keyboard.press("w");
      await page.locator("#pause").click();
      await more(201);
      assert.equal(await waterfall(page).count(), 3);
    });
  } finally {
    otlp.close();
  }
});

test("an address that names no trace does no harm", async () => {
  await withPage({ toml: quiet }, async (page, { url }) => {
    await page.goto(`${url}/#trace=../status&tab=nothing`);
    await page.reload();
    await page.locator(".backend").first().waitFor();
  });
});

test("a backend that fails says why and what next, in the strip", async () => {
  const toml = `${quiet}[xray]\nenabled = true\nschedule_delay = 50\n`;
  await withPage({ toml, env: { AWS_XRAY_DAEMON_ADDRESS: "127.0.0.1:9" } }, async (page) => {
    await press(page, "Home");
    const card = page.locator('.backend[data-state="failing"]');
    await card.waitFor();
    assert.match(await card.textContent(), /connection refused by udp .*; next: /);
    // And one that is off says which line turns it on.
    const off = await page.locator(".backend", { hasText: "honeycomb" }).textContent();
    assert.match(off, /enabled = true under \[honeycomb\] in telemetry\.toml/);
  });
});

test("a saved telemetry.toml switches the strip, and a mistake in it is said there", async () => {
  await withPage({ toml: quiet }, async (page, program) => {
    const card = page.locator(".backend", { hasText: /^\s*xray(?!_otlp)/ });
    await card.locator(".state", { hasText: "off" }).waitFor();
    program.save(`${quiet}[xray]\nenabled = true\n`);
    await card.locator(".state", { hasText: "on" }).waitFor();
    program.save(`${quiet}[xray]\nenabld = true\n`);
    await page.locator("#findings .error", { hasText: "telemetry.toml:4:1" }).waitFor();
    assert.match(await page.locator("#findings").textContent(), /enabld.*enabled/);
    assert.match(await card.textContent(), /xrayon/, "the settings of before stay in force");
    program.save(quiet);
    await card.locator(".state", { hasText: "off" }).waitFor();
    assert.equal(await page.locator("#findings .error").count(), 0);
  });
});

test("whatever a client sends stays text, and the page survives it", async () => {
  const markup = `<img src=x onerror="document.title='hacked'"><script>document.title='hacked'</script>`;
  await withPage({ toml: quiet }, async (page, { url }) => {
    await page.locator("#crud-text").fill(markup);
    await press(page, "Crud c");
    await page.locator("#feed").getByText(markup).waitFor();
    const traceparent = `00-${"a1".repeat(16)}-${"b2".repeat(8)}-01`;
    const headers = { "user-agent": "<b>".repeat(2000), traceparent, tracestate: "k=<script>" };
    await fetch(`${url}/api/activities/${encodeURIComponent(markup)}${"%00%1b[2J"}?q=${"y".repeat(4000)}`, { headers });
    await requests(page).nth(1).waitFor();
    await page.keyboard.press("Escape");
    await requests(page).first().click();
    await page.locator("#waterfall .trace-head", { hasText: "a1a1a1a1" }).waitFor();
    assert.match(await waterfall(page).first().textContent(), /its parent b2b2b2b2b2b2b2b2 is the caller's/);
    await page.locator("#tab-dialects").click();
    await page.locator("#dialects pre").first().waitFor();
    assert.equal(await page.title(), "cruddur: every trace, and its bytes");
    assert.equal(await page.locator("main img, main script").count(), 0);
    const overflow = await tooWide(page);
    assert.ok(overflow <= 0, `${overflow} pixels too wide`);
  });
});

test("everything can be done with the keyboard", async () => {
  await withPage({ toml: quiet }, async (page) => {
    const keys = page.keyboard;
    let count = 0;
    const keysOfPaths = [
      ["h", "home"], ["n", "notifications"], ["m", "message_groups"], ["u", "@andrewbrown"], ["4", "no-such-uuid"],
      ["2", "/api/activities"], ["5", "/api/fail"],
    ];
    for (const [key, path] of keysOfPaths) {
      await keys.press(key);
      await listed(page, ++count);
      assert.ok((await requests(page).first().textContent()).includes(path), key);
    }
    const current = () => page.locator('#request-list [aria-current="true"]').textContent();
    await keys.press("j");
    assert.match(await current(), /422/);
    await keys.press("k");
    assert.match(await current(), /500/);
    await keys.press("x");
    assert.match(await current(), /422/);
    await keys.press("e");
    assert.equal(await page.locator("#errors-first").getAttribute("aria-pressed"), "true");
    await keys.press("p");
    assert.equal(await page.locator("#pause").getAttribute("aria-pressed"), "true");
    await keys.press("p");
    // The tree: down, fold, unfold.
    await keys.press("w");
    await page.locator("#waterfall [data-span]:focus").waitFor();
    const rows = await waterfall(page).count();
    await keys.press("Home");
    await keys.press("ArrowLeft");
    assert.equal(await waterfall(page).count(), 1);
    await keys.press("ArrowRight");
    assert.equal(await waterfall(page).count(), rows);
    await keys.press("ArrowDown");
    await keys.press("ArrowDown");
    assert.equal(await page.locator("#waterfall [data-span]:focus").getAttribute("aria-level"), "3");
    // The dialects: tab walks through facts.
    await keys.press("d");
    await page.locator("#dialect-span").focus();
    // The trace id stands in the segment only; the second fact of a subsegment is its own id.
    await keys.press("Tab");
    await keys.press("Tab");
    assert.equal((await page.locator("#dialects .lit").count()) > 1, true);
    await keys.press("b");
    assert.equal(await page.locator("#tab-deliveries").getAttribute("aria-selected"), "true");
    // Writing, searching, filtering; escape leaves a field.
    await keys.press("c");
    await keys.type("crud by keys");
    await keys.press("Enter");
    await page.locator("#feed").getByText("crud by keys").waitFor();
    await keys.press("Escape");
    await keys.press("s");
    await keys.type("cloud");
    await keys.press("Enter");
    await page.locator("#said", { hasText: "search?term=cloud: 200" }).waitFor();
    await keys.press("Escape");
    await keys.press("/");
    await keys.type("fail");
    assert.equal(await requests(page).count(), 1);
    await keys.press("Escape");
    // Help lists what there is, and closes.
    await keys.press("?");
    assert.ok((await page.locator("#keys dt").count()) > 15);
    await keys.press("Escape");
    assert.equal(await page.locator("#help").getAttribute("open"), null);
  });
});

test("the choice survives a reload, and a server that was restarted or is gone is noticed", async () => {
  await withPage({ toml: quiet }, async (page, program) => {
    await press(page, "500");
    await waterfall(page).nth(2).waitFor();
    const id = await page.locator(".ids code").first().textContent();
    await page.keyboard.press("d");
    await page.reload();
    await page.locator("#dialects pre").first().waitFor();
    assert.match(page.url(), new RegExp(`trace=${id}`));
    await program.end();
    await page.locator("#trouble", { hasText: "is cruddur still running?" }).waitFor();
  });
});

test("it is readable in the dark and at 375 pixels", async () => {
  const viewport = { width: 375, height: 812 };
  const screens = [
    ["desk-dark", { colorScheme: "dark" }],
    ["telephone-light", { viewport }],
    ["telephone-dark", { viewport, colorScheme: "dark" }],
  ];
  for (const [name, options] of screens) {
    await withPage({ ...options }, async (page) => {
      await press(page, "Home");
      await press(page, "500");
      await waterfall(page).nth(2).waitFor();
      for (const tab of ["waterfall", "dialects", "deliveries"]) {
        await page.locator(`#tab-${tab}`).click();
        await page.locator(`#${tab} > *`).first().waitFor();
        const overflow = await tooWide(page);
        assert.ok(overflow <= 0, `${name}, ${tab}: ${overflow} pixels too wide`);
        await page.screenshot({ path: join(pictures, `${name}-${tab}.png`), fullPage: true });
      }
      const [ink, ground] = await page.evaluate(() => {
        const brightness = (color) => color.match(/\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0);
        const { color, backgroundColor } = getComputedStyle(document.body);
        return [brightness(color), brightness(backgroundColor)];
      });
      assert.equal(ink > ground, options.colorScheme === "dark", "dark is dark and light is light");
    });
  }
});
