// Drives the page in Chromium: called by ci/page.

import { chromium } from "playwright-core";
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { randomUUID } from "node:crypto";
import http from "node:http";

const { PROGRAM, SHOTS, CHROMIUM } = process.env;
const work = mkdtempSync(join(tmpdir(), "page-"));
const children = new Set();
let failures = 0;

function check(isRight, what) {
  console.log(`${isRight ? "ok   " : "FAIL "} ${what}`);
  if (!isRight) failures += 1;
}

/** A port that was free a moment ago. */
function freePort() {
  const probe = http.createServer();
  return new Promise((resolve, reject) => {
    probe.on("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const port = String(probe.address().port);
      probe.close(() => resolve(port));
    });
  });
}

/** Starts the collector; its port and the URL of its page. */
function serve(...more) {
  const child = spawn(PROGRAM, ["serve", ...more], { stdio: ["ignore", "pipe", "inherit"] });
  children.add(child);
  child.on("exit", () => children.delete(child));
  return new Promise((resolve, reject) => {
    let text = "";
    child.on("exit", () => reject(new Error("the collector has ended")));
    child.stdout.on("data", data => {
      if (text.length > 10_000) return;
      text += data;
      const page = /page at (http:\S+)/.exec(text)?.[1];
      if (page) resolve({ child, page, base: new URL(page).origin });
    });
  });
}

const stop = server => new Promise(resolve => {
  server.child.on("exit", resolve);
  // One that is killed draws a new token when it starts again.
  server.child.kill("SIGTERM");
});

const agent = new http.Agent({ keepAlive: true });
function post(base, path, body, headers = {}) {
  return new Promise((resolve, reject) => {
    const started = performance.now();
    const request = http.request(base + path, { method: "POST", agent, headers: { "content-type": "application/json", "x-api-key": "k", ...headers } }, response => {
      response.resume().on("end", () => resolve({ status: response.statusCode, ms: performance.now() - started }));
    });
    request.on("error", reject);
    request.end(JSON.stringify(body));
  });
}

const at = ms => new Date(ms).toISOString();
const event = (index, kind, ms, more = {}) => ({ event: kind, event_id: randomUUID(), event_session_index: index, severity: "INFO", timestamp: at(ms), ...more });
const named = (index, name, ms, data, severity = "INFO") => event(index, "GENERIC_EVENT", ms, { event_name: name, event_data: data, severity });
const send = (base, session, events, key = randomUUID()) =>
  post(base, "/api/v1/telemetry", { session_id: session, platform: "unix/linux", sdk_version: "0.1.0", process_uuid: "5f1c2d3e-4b5a-4c7d-8e9f-0a1b2c3d4e5f", events }, { "x-idempotency-key": key });

/** A session as a training run sends it: calls, a pause of the queue, retries, a loss, errors. */
async function training(base, session, token, { isOpen }) {
  const start = Date.now() - 26_000;
  let index = 0, call = 0;
  const pair = (path, from, to, bad) => {
    const metadata = { method: "POST", path, call: call++ };
    return [
      [from, "tinkex.http.request.start", { measurements: { system_time: from * 1e6 }, metadata }],
      ...(to ? [[to, bad ? "tinkex.http.request.exception" : "tinkex.http.request.stop", { measurements: { duration: (to - from) * 1e6 }, metadata: bad ? { ...metadata, kind: "timeout", reason: "no response" } : { ...metadata, result: "ok", status: 200 } }, bad ? "ERROR" : "INFO"]] : []),
    ];
  };
  let all = [[start + 40, "run.config", { model: "small", lora_rank: 32, learning_rate: 1e-4, seed: 7 }]];
  let t = start + 200;
  all.push(...pair("/api/v1/create_model", t, t + 900));
  for (let step = 0; step < 12; step += 1) {
    t = start + 1_400 + step * 1_950;
    all.push(...pair("/api/v1/forward_backward", t, t + 620), ...pair("/api/v1/optim_step", t + 90, t + 760, step === 7));
    all.push(...pair("/api/v1/retrieve_future", t + 650, t + 1_500));
    all.push([t + 1_600, "train.step", { step, loss: Number((2.4 * Math.exp(-step / 6) + 0.31).toFixed(4)), tokens: 16_384 + step * 128, grad_norm: 0.52 }]);
  }
  for (const [from, to, state] of [[9_200, 12_700, "paused_capacity"], [17_400, 18_900, "paused_rate_limit"]]) {
    all.push([start + from, "tinkex.queue.state_change", { measurements: { queue_depth: 14 }, metadata: { from: "active", to: state, reason: "no room", request_id: "r-1" } }, "WARNING"]);
    all.push([start + to, "tinkex.queue.state_change", { measurements: {}, metadata: { from: state, to: "active", reason: "", request_id: "r-1" } }]);
  }
  if (isOpen) all.push(...pair("/api/v1/forward_backward", start + 24_900, null));
  all.sort((one, other) => one[0] - other[0]);
  let events = [event(index++, "SESSION_START", start)];
  for (const [ms, name, data, severity] of all) {
    if (index === 31) index += 4; // These were refused: the queue was full.
    events.push(named(index++, name, ms, data, severity));
    if (name === "train.step" && data.step === 7) events.push(event(index++, "UNHANDLED_EXCEPTION", ms + 4, {
      severity: "ERROR", error_type: "train::StepError", error_message: "step 7 was given up after 3 attempts",
      traceback: "Caused by: http::Timeout: no response within 30 s\nCaused by: std::io::error::Error: connection reset by peer (os error 104)\nStack:\n   0: train::step::run\n             at src/step.rs:118\n   1: train::main\n             at src/main.rs:42",
    }));
  }
  events.push(named(index++, "tinkex.telemetry.report", start + 25_300, { lost: [{ first: 31, last: 34, reason: "queue_full" }], refused: { queue_full: 4 }, dropped: {}, truncated: 0, retried: 2 }, "WARNING"));
  const size = 17;
  for (let from = 0; from < events.length; from += size) {
    const batch = events.slice(from, from + size), key = randomUUID();
    const number = from / size;
    if (number === 1) await post(base, "/ui/api/fail", { script: "503" }, { authorization: `Bearer ${token}` });
    if (number === 3) await post(base, "/ui/api/fail", { script: "429:1" }, { authorization: `Bearer ${token}` });
    for (let attempt = 0; attempt < 3; attempt += 1) {
      if ((await send(base, session, batch, key)).status === 200) break;
      await sleep(250 * 2 ** attempt);
    }
    await sleep(180);
  }
  return index;
}

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));

/** Waits for a condition in the page, whose policy forbids it to be sent as text that the page evaluates. */
async function until(page, condition, argument, { timeout = 15_000 } = {}) {
  for (const end = Date.now() + timeout; !await page.evaluate(condition, argument);) {
    if (Date.now() > end) throw new Error(`not in time: ${condition}`);
    await sleep(50);
  }
}

async function main() {
  mkdirSync(SHOTS, { recursive: true });
  const keep = join(work, "keep");
  // A port that is given keeps its token over a restart.
  const port = await freePort();
  let server = await serve("--port", port, "--keep", keep);
  const token = new URL(server.page).searchParams.get("t");
  const browser = await chromium.launch({ executablePath: CHROMIUM.includes("/") ? CHROMIUM : `/usr/bin/${CHROMIUM}`, args: ["--no-sandbox", "--host-resolver-rules=MAP rebound.example 127.0.0.1", "--enable-precise-memory-info", "--js-flags=--expose-gc"] });
  const context = await browser.newContext({ viewport: { width: 1280, height: 720 } });
  const page = await context.newPage();
  const trouble = [];
  page.on("console", message => { if (["error", "warning"].includes(message.type()) && !/ERR_CONNECTION|ERR_INCOMPLETE|Failed to load resource: net/.test(message.text())) trouble.push(message.text()); });
  page.on("pageerror", error => trouble.push(String(error)));
  page.on("dialog", dialog => { trouble.push(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
  const total = () => page.evaluate(() => [...telemetry.store.sessions.values()].reduce((sum, session) => sum + session.rows.length, 0));

  // Who may see it.
  const stranger = await (await browser.newContext()).newPage();
  check((await stranger.goto(`http://rebound.example:${port}/ui`)).status() === 403, "a rebound name gets a 403");
  check((await stranger.goto(`http://rebound.example:${port}/ui?t=${token}`)).status() === 403, "a rebound name gets a 403 with the token, too");
  check((await stranger.goto(`${server.base}/ui`)).status() === 401, "without the token there is a 401");
  check((await stranger.goto(`${server.base}/ui/main.js`)).status() === 401, "and no script");
  const response = await page.goto(server.page);
  check(response.status() === 200 && page.url() === `${server.base}/ui`, "the token opens the page and leaves the address");
  const cookie = (await context.cookies())[0];
  check(cookie.httpOnly && cookie.sameSite === "Strict" && cookie.path === "/ui", "the cookie is HttpOnly and SameSite=Strict");
  await page.waitForSelector("#state.live");
  check(await page.isVisible("#empty"), "a page without sessions says what to do");

  // A real session, and what it looks like.
  await training(server.base, "train-llama-2025-11-26", token, { isOpen: true });
  await send(server.base, "eval-7f3a", [event(0, "SESSION_START", Date.now()), named(1, "eval.done", Date.now(), { accuracy: 0.914 }), event(2, "SESSION_END", Date.now(), { duration: "0:00:04.120000" })]);
  await until(page, () => document.querySelectorAll(".session").length === 2);
  await page.click(".session:last-child");
  await page.keyboard.press("0");
  await page.click("#follow");
  await page.keyboard.press("e");
  await page.waitForSelector("#detail-body table");
  for (let press = 0; press < 3 && !(await page.textContent("#detail-title")).includes("StepError"); press += 1) {
    await page.keyboard.press("e");
    await sleep(300);
  }
  check((await page.textContent("#detail-body")).includes("connection reset by peer"), "an exception shows its causes");
  check((await page.textContent("#detail-body")).includes("src/step.rs:118"), "and its stack");
  for (const scheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: scheme });
    await sleep(300);
    await page.evaluate(() => document.activeElement.blur());
    await page.screenshot({ path: join(SHOTS, `page-${scheme}.jpg`), type: "jpeg", quality: 72 });
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.keyboard.press("g");
  check((await page.textContent("#detail-body")).includes("queue_full"), "a gap says why, from the loss report");
  await page.setViewportSize({ width: 390, height: 780 });
  await page.keyboard.press("Escape");
  await sleep(400);
  await page.screenshot({ path: join(SHOTS, "page-narrow.jpg"), type: "jpeg", quality: 72 });
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  check(!overflow, "nothing is wider than a phone");
  await page.setViewportSize({ width: 1280, height: 720 });

  // The keyboard, and the filter.
  await page.keyboard.press("Home");
  await page.keyboard.press("j");
  check((await page.getAttribute(".row[aria-selected=true]", "id")) === "row-1", "j goes to the next event");
  await page.keyboard.press("/");
  await page.keyboard.type("train.step");
  await until(page, () => document.querySelector("#shown").textContent.startsWith("12 of"));
  check(true, "the filter finds what is asked for");
  await page.fill("#text", "");
  await page.keyboard.press("Escape");

  // Contrast of every text that is visible, by WCAG.
  for (const scheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: scheme });
    await sleep(200);
    const weak = await page.evaluate(contrasts);
    check(weak.length === 0, `AA contrast, ${scheme} ${weak.slice(0, 3).join("; ")}`);
  }

  // Hostile texts, in every field.
  const evil = ["<img src=x onerror=alert(1)>", "<script>alert(2)</script>", "\"><svg onload=alert(3)>", "javascript:alert(4)", "\u202egnp.exe\u2066", "\u001b[2J", "{{constructor}}", "__proto__", "\ud83d\ude00\u0000"];
  for (const text of evil) {
    const data = { [text]: text, deep: [{ [text]: [text] }], __proto__x: text };
    await send(server.base, `evil ${text}`, [
      event(0, "SESSION_START", Date.now()), named(1, text, Date.now(), data),
      named(2, "tinkex.http.request.start", Date.now(), { measurements: { duration: text }, metadata: { method: text, path: text, call: text } }),
      named(3, "tinkex.queue.state_change", Date.now(), { measurements: {}, metadata: { to: text, request_id: text } }),
      named(4, "tinkex.telemetry.report", Date.now(), { lost: [{ first: 5, last: 6, reason: text }, null, text], refused: { [text]: text }, dropped: text }),
      event(7, "UNHANDLED_EXCEPTION", Date.now(), { error_type: text, error_message: text, traceback: `Caused by: ${text}\nStack:\n${text}`, severity: "ERROR" }),
    ]);
  }
  await until(page, count => document.querySelectorAll(".session").length === count, 2 + evil.length);
  for (let at = 1; at <= evil.length; at += 1) {
    await page.click(`.session:nth-child(${at})`);
    await until(page, at => document.querySelector(`.session:nth-child(${at})`).getAttribute("aria-selected") === "true", at);
    await page.keyboard.press("Home");
    for (let row = 0; row < 7; row += 1) {
      await sleep(30);
      await page.keyboard.press("j");
    }
  }
  const markup = await page.evaluate(() => document.querySelectorAll("img, svg, iframe, body script, [onerror], [onload]").length);
  check(markup === 0, "no text has become markup");
  const raw = await page.evaluate(() => /[\u202a-\u202e\u2066-\u2069\u0000\u001b]/.test(document.body.textContent));
  check(!raw, "no text can turn direction or hide");
  check(await page.evaluate(() => ({}).x === undefined && Object.prototype.x === undefined), "no key reaches a prototype");
  check(trouble.length === 0, `no dialog, no error ${trouble.slice(0, 3).join("; ")}`);

  // A restart in the middle.
  const before = await total();
  await send(server.base, "resumed", [event(0, "SESSION_START", Date.now()), ...Array.from({ length: 50 }, (_, at) => named(at + 1, "n", Date.now(), { at }))]);
  await until(page, count => [...telemetry.store.sessions.values()].reduce((sum, s) => sum + s.rows.length, 0) === count, before + 51);
  await sleep(500);
  await stop(server);
  await page.waitForSelector("#state.away");
  server = await serve("--port", port, "--keep", keep);
  await send(server.base, "resumed", Array.from({ length: 50 }, (_, at) => named(at + 51, "n", Date.now(), { at })));
  await page.waitForSelector("#state.live", { timeout: 20_000 });
  await until(page, count => [...telemetry.store.sessions.values()].reduce((sum, s) => sum + s.rows.length, 0) >= count, before + 101);
  await sleep(500);
  const indices = await page.evaluate(() => [...telemetry.store.sessions.values()].find(session => session.id === "resumed").rows.map(row => row.i).join());
  check(await total() === before + 101 && indices === Array.from({ length: 101 }, (_, at) => at).join(), "after a restart no row is doubled or missing");

  // Load: how long the collector takes to answer with the page open and closed, and what the page needs.
  const seconds = Number(process.env.SECONDS_OF_LOAD ?? 20), rate = 1_000;
  const load = async session => {
    const times = [];
    const start = Date.now();
    for (let n = 0; n < seconds * rate / 100; n += 1) {
      const events = Array.from({ length: 100 }, (_, at) => named(n * 100 + at + 1, "load.step", Date.now(), { n, at, note: "x".repeat(60) }));
      if (n === 0) events.unshift(event(0, "SESSION_START", Date.now()));
      times.push((await send(server.base, session, events)).ms);
      await sleep(Math.max(0, start + (n + 1) * 100 - Date.now()));
    }
    times.sort((one, other) => one - other);
    return times[Math.floor(times.length / 2)];
  };
  await page.evaluate(() => {
    globalThis.frames_ = [];
    let last = performance.now();
    const tick = now => { frames_.push(now - last); last = now; requestAnimationFrame(tick); };
    requestAnimationFrame(tick);
    globalThis.long_ = 0;
    new PerformanceObserver(list => { for (const entry of list.getEntries()) long_ = Math.max(long_, entry.duration); }).observe({ entryTypes: ["longtask"] });
  });
  const open = await load("load-open");
  await until(page, count => [...telemetry.store.sessions.values()].find(s => s.id === "load-open")?.rows.length === count, seconds * rate + 1, { timeout: 20_000 });
  check(true, `every one of ${seconds * rate} events is in the page`);
  const { long, memory } = await page.evaluate(() => ({ long: long_, memory: performance.memory.usedJSHeapSize }));
  console.log(`      the longest task ${Math.round(long)} ms, the heap ${Math.round(memory / 1e6)} MB`);
  check(memory < 200e6, "the page is below 200 MB");
  await page.goto("about:blank");
  const closed = await load("load-closed");
  console.log(`      the median answer to 100 events: ${open.toFixed(2)} ms with the page, ${closed.toFixed(2)} ms without`);
  await browser.close();
  await stop(server);
}

/** The texts below AA's ratio. Runs in the page. */
function contrasts() {
  const channel = value => value <= 10.31 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4;
  const numbers = text => (text.match(/[\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const weak = [];
  for (const element of document.querySelectorAll("body *")) {
    const hasText = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!hasText || !element.checkVisibility?.({ visibilityProperty: true }) || element.disabled) continue;
    let behind = element, ground = [0, 0, 0, 0];
    while (behind && !(ground[3] === undefined || ground[3] > 0)) {
      ground = numbers(getComputedStyle(behind).backgroundColor);
      behind = behind.parentElement;
    }
    const one = light(numbers(getComputedStyle(element).color)), other = light(ground);
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) weak.push(`${element.className || element.tagName} ${ratio.toFixed(2)}: ${element.textContent.slice(0, 30)}`);
  }
  return weak;
}

try {
  await main();
} catch (error) {
  console.error(error);
  failures += 1;
}
for (const child of children) child.kill("SIGKILL");
agent.destroy();
rmSync(work, { recursive: true, force: true });
console.log(failures ? `${failures} checks failed` : "All checks of the page hold.");
process.exit(failures ? 1 : 0);
