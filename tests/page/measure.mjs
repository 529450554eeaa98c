// What the page costs a browser, beside references of the same run. `STORE` names a store that is full already; the
// relay is started on it. Prints a table; nothing passes or fails by it.
//
// Times of the browser's main thread are measured on a stream that is played by this script, so that the relay, its
// senders and handlers take no processor meanwhile: all else of the page comes from the relay.

import { readdir } from "node:fs/promises";
import { createServer, request } from "node:http";
import { brotliCompressSync } from "node:zlib";
import { launch } from "./browser.mjs";
import { Agent, Handler, Relay, end, github, ok, until } from "./lib.mjs";
import { SECRET } from "./scene.mjs";

const STATIC = new URL("../../page/static/", import.meta.url);
const LOADS = Number(process.env.LOADS ?? 11), WEBHOOKS = Number(process.env.WEBHOOKS ?? 300), SECONDS = Number(process.env.SECONDS ?? 10);
/// Rows that come in five minutes, and in an hour, at 100 a second; how fast they are played.
const EARLY = 30_000, LATE = Number(process.env.LATE ?? 360_000), PLAYED = 2000;

const TABLES = `
[store]
url = "sqlite:${process.env.STORE}"
max_size = "1TiB"
[[endpoint]]
name = "archive"
verify = "none"
wait_for_agent = "0s"
[[endpoint]]
name = "github"
verify = { provider = "github", secrets = ["env:HOOK_SECRET"] }
`;

const sorted = (list) => [...list].sort((a, b) => a - b);
const at = (list, part) => sorted(list)[Math.min(list.length - 1, Math.floor(list.length * part))];
const ms = (value) => `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ms`, kb = (bytes) => `${(bytes / 1000).toFixed(1)} kB`, mb = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
const pause = (time_ms) => new Promise((next) => setTimeout(next, time_ms));

const table = [];
const row = (what, here, reference, ratio, goal) => { table.push([what, here, reference, ratio, goal]); };

/// Runs in the page before anything else: when its first rows were painted, when each row came, frames and long tasks.
function watch() {
  const painted = (then) => requestAnimationFrame(() => setTimeout(then));
  const first = () => (document.querySelector("[role=row][data-id]:not([hidden])") ? painted(() => { globalThis.__first = performance.now(); }) : requestAnimationFrame(first));
  requestAnimationFrame(first);
  globalThis.__came = {};
  globalThis.__watcher = new MutationObserver((changes) => {
    const ids = changes.map(({ target }) => target.dataset.id).filter((id) => id && !globalThis.__came[id]);
    if (ids.length) painted(() => { for (const id of ids) globalThis.__came[id] ??= Date.now(); });
  });
  globalThis.__watcher.observe(document, { subtree: true, attributes: true, attributeFilter: ["data-id"] });
  globalThis.__frames = async (time_ms) => {
    const frames = [], long = [], watcher = new PerformanceObserver((list) => long.push(...list.getEntries().map((one) => one.duration)));
    watcher.observe({ type: "longtask" });
    const begin = performance.now();
    for (let before = begin; before - begin < time_ms;) {
      const now = await new Promise(requestAnimationFrame);
      frames.push(now - before);
      before = now;
    }
    watcher.disconnect();
    return { frames: frames.slice(1), long };
  };
}

/// A person who is logged in, with nothing cached.
async function comes(origin, key) {
  const context = await (await launch()).newContext({ viewport: { width: 1440, height: 900 }, reducedMotion: "no-preference" });
  await context.addInitScript(watch);
  await context.addInitScript(`localStorage.setItem("relay.key", ${JSON.stringify(key)})`);
  const page = await context.newPage(), files = new Set();
  page.on("request", (one) => { if (/\.(js|mjs|css)$/.test(new URL(one.url()).pathname)) files.add(new URL(one.url()).pathname); });
  await page.goto(`${origin}/`);
  await page.waitForFunction(() => globalThis.__first);
  return { page, files, first: () => page.evaluate(() => globalThis.__first), leave: () => context.close() };
}

/// A file as the relay serves it.
const served = async (relay, path) => Buffer.from(await (await fetch(relay.origin + path)).arrayBuffer());

/// The same files, fetched and not run, with the rows in the markup.
async function still(relay, files, markup) {
  const links = [...files].map((path) => (path.endsWith(".css") ? `<link rel="stylesheet" href="${path}">` : `<link rel="modulepreload" href="${path}">`));
  const frame = `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Still</title>${links.join("")}</head>${markup}</html>`;
  const held = new Map(await Promise.all([...files].map(async (path) => [path, await served(relay, path)])));
  const server = createServer(({ url }, answer) => {
    const type = url.endsWith(".css") ? "text/css" : url === "/" ? "text/html" : "text/javascript";
    const body = url === "/" ? frame : held.get(url) ?? "";
    answer.writeHead(200, { "content-type": `${type}; charset=utf-8` }).end(body);
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return { origin: `http://127.0.0.1:${server.address().port}`, stop: () => server.close() };
}

async function sizes(relay, first) {
  const names = (await readdir(STATIC, { recursive: true })).filter((name) => /\.(js|mjs|css|svg)$/.test(name)).map((name) => `/${name}`);
  const of = async (list) => {
    const all = await Promise.all(["/", "/version.js", ...list].map((path) => served(relay, path)));
    return [all, all.map((bytes) => brotliCompressSync(bytes))].map((each) => each.reduce((sum, bytes) => sum + bytes.length, 0));
  };
  const [raw, brotli] = await of(names), [early, packed] = await of([...first].filter((path) => path !== "/version.js"));
  row("all files of the page", `${kb(raw)}, ${kb(brotli)} in brotli`, "–", "–", "160 kB, 45 kB");
  row("of them before the first rows", `${kb(early)}, ${kb(packed)} in brotli`, "–", "–", "160 kB, 45 kB");
}

async function loads(relay, key) {
  const one = await comes(relay.origin, key), { files } = one, markup = await one.page.evaluate(() => document.body.outerHTML);
  await sizes(relay, files);
  await one.leave();
  const reference = await still(relay, files, markup), times = [[], []];
  for (let n = 0; n < LOADS; n++) {
    for (const [i, origin] of [relay.origin, reference.origin].entries()) {
      const person = await comes(origin, key);
      times[i].push(await person.first());
      await person.leave();
    }
  }
  reference.stop();
  const [here, there] = times.map((list) => at(list, 0.5)), ratio = at(times[0].map((time, i) => time / times[1][i]), 0.5);
  row("first rows painted, median", ms(here), `${ms(there)}: the same files and rows, nothing run`, ratio.toFixed(2), "2.5, and 300 ms");
}

async function news(relay, key) {
  const handler = await new Handler().start(), agent = await Agent.start(relay, "github", handler.port), person = await comes(relay.origin, key), late = [];
  for (let n = 0; n < WEBHOOKS; n++) {
    const delivery = crypto.randomUUID(), { id } = await github(relay, "github", SECRET, `{"n":${n}}`, { id: delivery });
    const came = await until("the row is there", () => person.page.evaluate((id) => globalThis.__came[id], id));
    late.push(Math.max(0, came - handler.requests.find((one) => one.headers["x-github-delivery"] === delivery).at));
    await pause(Math.random() * 100);
  }
  await person.leave();
  await agent.stop();
  row("an event on the page after its handler's receipt, p50 and p99", `${ms(at(late, 0.5))}, ${ms(at(late, 0.99))}`, "–", "–", "p99 200 ms");
}

/// The relay behind an origin whose stream is played: `rate` rows a second, ten messages a second.
async function player(relay, sample) {
  const [hostname, port] = relay.admin.split(":");
  let rate = 0, sent = 0, serial = 0;
  const streams = new Set();
  const made = () => {
    const n = serial++, status = n % 40 ? 200 : 500;
    return { ...sample, id: `hook_${Date.now().toString(16).padStart(12, "0")}7${n.toString(16).padStart(19, "0")}`, rev: n, received_at: new Date().toISOString(), state: status === 200 ? "delivered" : "dead", status,
      event_type: ["push", "invoice.payment_failed", "orders/create"][n % 3], target: `/hooks/${n % 100}`, took_us: 500 + (n * 7919) % 900_000, size: 100 + n % 5000, attempt_count: 1 + n % 2, patience: (n % 100) / 100, agent: "edge-1" };
  };
  const timer = setInterval(() => {
    if (!rate || !streams.size) return;
    const rows = Array.from({ length: rate / 10 }, made);
    sent += rows.length;
    for (const stream of streams) stream.write(`id: play-${serial}\nevent: rows\ndata: ${JSON.stringify({ rows, left_out: 0 })}\n\n`);
  }, 100);
  const server = createServer((came, answer) => {
    if (came.url.startsWith("/api/v1/stream")) {
      answer.writeHead(200, { "content-type": "text/event-stream" }).write(": played\n\n");
      streams.add(answer);
      return answer.on("close", () => streams.delete(answer));
    }
    const asked = request({ hostname, port, method: came.method, path: came.url, headers: { accept: came.headers.accept, authorization: came.headers.authorization ?? "", host: relay.admin } }, (told) => { told.pipe(answer.writeHead(told.statusCode, told.headers)); });
    return came.pipe(asked.on("error", () => answer.destroy()));
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return {
    origin: `http://127.0.0.1:${server.address().port}`, play: (rows) => { rate = rows; }, sent: () => sent,
    stop: () => { clearInterval(timer); server.closeAllConnections(); server.close(); },
  };
}

/// Ends the notes of rows that came: they take time and memory of their own.
const unwatched = ({ page }) => page.evaluate(() => globalThis.__watcher.disconnect());

/// The longest task of a page's main thread, in milliseconds that a processor worked on it.
async function longest(tools, time_ms) {
  await tools.send("Tracing.start", { transferMode: "ReturnAsStream", traceConfig: { includedCategories: ["toplevel"] } });
  await pause(time_ms);
  const ended = new Promise((next) => { tools.once("Tracing.tracingComplete", next); });
  await tools.send("Tracing.end");
  const { stream } = await ended;
  let text = "";
  for (let eof = false; !eof;) {
    const read = await tools.send("IO.read", { handle: stream });
    text += read.data;
    ({ eof } = read);
  }
  const { traceEvents: all } = JSON.parse(text), main = new Set(all.filter((one) => one.name === "thread_name" && one.args.name === "CrRendererMain").map((one) => one.tid));
  return Math.max(...all.filter((one) => one.name.endsWith("RunTask") && main.has(one.tid)).map((one) => (one.tdur ?? 0) / 1000));
}

async function busy(played, key) {
  const person = await comes(played.origin, key), tools = await person.page.context().newCDPSession(person.page);
  // In time that the main thread had a processor: what else the machine does is not counted.
  await tools.send("Performance.enable", { timeDomain: "threadTicks" });
  const spent = async () => Object.fromEntries((await tools.send("Performance.getMetrics")).metrics.map((one) => [one.name, one.value]));
  // One event is open, as it is where somebody looks.
  await person.page.getByRole("grid").focus();
  await person.page.keyboard.press("Home");
  await person.page.locator(".detail .facts").waitFor();
  await unwatched(person);
  played.play(1000);
  await pause(2000);
  const before = await spent(), begin = Date.now(), sent = played.sent();
  await pause(SECONDS * 1000);
  const after = await spent();
  const seconds = (Date.now() - begin) / 1000, share = (name) => `${Math.round(((after[name] - before[name]) / seconds) * 100)} %`;
  row(`the main thread, ${Math.round((played.sent() - sent) / seconds)} rows a second`, `${share("ThreadTime")} of a core (script ${share("ScriptDuration")}, styles ${share("RecalcStyleDuration")}, layout ${share("LayoutDuration")})`, "–", "–", "15 %");
  // To count frames asks for one after the other, which costs by itself.
  const { frames, long } = await person.page.evaluate((time) => globalThis.__frames(time), SECONDS * 1000);
  row("its frames, p50 and p95", `${ms(at(frames, 0.5))}, ${ms(at(frames, 0.95))}`, "–", "–", "p95 17 ms");
  row("its tasks above 50 ms", `${long.length}${long.length ? `, the longest ${ms(Math.max(...long))}` : ""}; the longest took ${ms(await longest(tools, SECONDS * 1000))} of a processor`, "–", "–", "0");
  played.play(0);
  await person.leave();
}

async function grows(played, key) {
  const person = await comes(played.origin, key), tools = await person.page.context().newCDPSession(person.page), heap = [];
  await tools.send("Performance.enable");
  await unwatched(person);
  const begin = played.sent();
  played.play(PLAYED);
  for (const rows of [EARLY, LATE]) {
    await until(`${rows} rows`, async () => { await pause(500); return played.sent() - begin >= rows; }, 600_000);
    await tools.send("HeapProfiler.collectGarbage");
    heap.push((await tools.send("Performance.getMetrics")).metrics.find((one) => one.name === "JSHeapUsedSize").value);
  }
  played.play(0);
  await person.leave();
  row(`memory of the page after ${LATE.toLocaleString("en")} rows, as in an hour at 100 a second`, mb(heap[1]), `${mb(heap[0])} after ${EARLY.toLocaleString("en")}, as in 5 minutes`, (heap[1] / heap[0]).toFixed(2), "1.3");
}

try {
  const relay = await Relay.start(TABLES, { env: { HOOK_SECRET: SECRET } });
  const code = ok(/#code=(\S+)/.exec(await relay.page()), "an address that logs in")[1];
  const { key } = await relay.call("POST", "/sessions", { code });
  await loads(relay, key);
  await news(relay, key);
  const { events: [sample] } = await relay.call("GET", "/events?limit=1"), played = await player(relay, sample);
  await busy(played, key);
  await grows(played, key);
  played.stop();
  console.log(`| what | the page | beside | ratio | goal |\n|---|---|---|---|---|\n${table.map((cells) => `| ${cells.join(" | ")} |`).join("\n")}`);
} finally {
  await end();
}
process.exit(0);
