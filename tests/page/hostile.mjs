// Hostile content through every view, tab, form, sheet and export of the page: it stays text. And pages of other
// origins: they can neither read nor act.

import { createHmac } from "node:crypto";
import { createServer, request } from "node:http";
import { Person, close, picture } from "./browser.mjs";
import { BODIES, TEXTS } from "./corpus.mjs";
import { Agent, Handler, equal, ok, steps, until } from "./lib.mjs";
import { SECRET, TABLES, relay as start } from "./scene.mjs";

let relay, ids = [], person;

/// A webhook with raw parts, as no client would send it.
function post(path, body, headers) {
  const [hostname, port] = relay.public.split(":");
  return new Promise((done, fail) => {
    const sent = request({ hostname, port, method: "POST", path, headers: { ...headers, "content-length": Buffer.byteLength(body) } }, (answer) => {
      answer.resume().on("end", () => done({ status: answer.statusCode, id: answer.headers["relay-event-id"] })).on("error", fail);
    });
    sent.on("error", fail).end(body);
  });
}

const signed = (body) => `sha256=${createHmac("sha256", SECRET).update(body).digest("hex")}`;

async function fill() {
  relay = await start(TABLES.replace('schedule = ["100ms"]', 'schedule = ["1h"]'));
  // The answer is as bad as the webhook was.
  const handler = await new Handler((came) => ({
    status: came.headers["x-bad"] ? 500 : 200, headers: { "content-type": came.headers["content-type"] ?? "text/html", "x-echo": came.headers["x-note"] ?? "" },
    body: came.body.subarray(0, 60_000),
  })).start();
  await Agent.start(relay, "github", handler.port, { name: "agent" });
  await Agent.start(relay, "ask", handler.port, { name: TEXTS[0] }).catch(() => Agent.start(relay, "ask", handler.port, { name: "img-src-x" }));
  for (const [at, [name, type, body, encoding]] of BODIES.entries()) {
    const text = TEXTS[at % TEXTS.length], bytes = Buffer.from(body);
    const came = await post(at % 3 ? "/github" : "/ask", bytes, {
      "content-type": type, "x-github-event": text, "x-github-delivery": `${text}${at}`, "x-hub-signature-256": signed(bytes), "x-note": text,
      ...(encoding ? { "content-encoding": encoding } : {}), ...(at % 5 === 1 ? { "x-bad": "1" } : {}),
    });
    ok(came.status < 600 && came.id, `${name}: ${came.status}`);
    ids.push([name, came.id]);
  }
  for (const text of TEXTS) {
    const came = await post(`/github/${encodeURIComponent(text)}?q=${encodeURIComponent(text)}`, "{}", { "content-type": text, "x-github-event": text, "x-hub-signature-256": `sha256=${text}` });
    ok([400, 401].includes(came.status), `a wrong signature got ${came.status}`);
    if (came.id) ids.push([`refused ${text}`, came.id]);
    await post(`/ask/${text}?${text}`, text, { "x-note": text }).catch(() => null);
  }
  return `${ids.length} events`;
}

/// Until the page has drawn twice; a body that keeps it busy for seconds is a failure.
const idle = async (page, name) => {
  const ms = await page.evaluate(() => new Promise((done) => {
    const from = performance.now();
    requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - from)));
  }));
  ok(ms < 3000, `${name} keeps the page busy for ${Math.round(ms)} ms`);
};

/// Opens a sheet by its key and closes it again.
async function sheet(page, key, name) {
  await page.keyboard.press(key);
  await page.getByRole("dialog").waitFor();
  await idle(page, name);
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
}

/// Through the tabs and forms of the event that is open, and its sheets.
async function through(page, name) {
  await page.locator(".detail h2").first().waitFor();
  await page.locator(".detail [aria-busy=true]").waitFor({ state: "detached" });
  for (let tab = 0; tab < 4; tab++) {
    for (let form = 0; form < 3; form++) {
      await page.keyboard.press("v");
      await idle(page, name);
    }
    await page.keyboard.press("t");
    await idle(page, name);
  }
  await page.locator(".detail").first().focus();
  if (await page.getByRole("button", { name: /^Edit and replay/ }).count()) await sheet(page, "e", name);
  equal(await page.evaluate(() => [typeof globalThis.polluted, typeof {}.polluted, document.cookie]), ["undefined", "undefined", ""], name);
}

/// Events beside each other, in pairs as they come.
async function compared(page) {
  await page.goto(`${relay.origin}/`);
  await page.locator("[role=row][data-id]").first().waitFor();
  await page.getByRole("grid").focus();
  for (let pair = 0; pair < 15; pair++) {
    for (const key of ["j", "x", "j", "x"]) await page.keyboard.press(key);
    await sheet(page, "=", `pair ${pair}`);
    await page.getByRole("button", { name: "Unmark all" }).click();
    await page.getByRole("grid").focus();
  }
}

async function every(theme) {
  person = await Person.come({ origin: relay.origin, theme });
  await person.open(await relay.page()).then((page) => page.locator("main").waitFor());
  const page = await person.open("/");
  await page.locator("[role=option], [role=row]").first().waitFor();
  for (const [name, id] of ids) {
    await page.goto(`${relay.origin}/e/${encodeURIComponent(id)}`);
    await through(page, name);
    await person.clean(name);
  }
  await compared(page);
  await person.clean("compare");
  // Of what is not there, and of a query that is none, the browser writes a line of its own.
  person.expected.push(/status of 40[04] \(.*\/api\/v1\/(events|endpoints)/);
  for (const path of ["/", "/events?q=is:refused", `/events?q=${encodeURIComponent(`"${TEXTS[0]}"`)}`, `/events?q=${encodeURIComponent(TEXTS[2])}`, "/endpoints", "/endpoints/github", `/endpoints/${encodeURIComponent(TEXTS[0])}`, "/agents", "/dead", "/figures", "/access", `/e/${encodeURIComponent(TEXTS[0])}`]) {
    await page.goto(relay.origin + path);
    await page.locator("main").waitFor();
    await page.locator("[aria-busy=true]").waitFor({ state: "detached" });
    await picture(page, `hostile-${path.replaceAll(/\W+/g, "-").slice(0, 40)}-${theme}`);
    await person.clean(path);
  }
  await page.goto(`${relay.origin}/events?q=is:refused`);
  await page.getByText(TEXTS[0], { exact: false }).first().waitFor();
  await person.leave();
  return `${ids.length} events`;
}

async function exports() {
  for (const [name, id] of ids) for (const as of ["curl", "curl-ps", "http", "har", "cassette"]) {
    const answer = await fetch(`${relay.origin}/api/v1/events/${id}/export?as=${as}`, { headers: { authorization: `Bearer ${relay.admin_token}` } });
    const text = await answer.text();
    ok(answer.ok || answer.status === 409 || answer.status === 404, `${name} as ${as}: ${answer.status} ${text.slice(0, 200)}`);
    equal(answer.headers.get("x-content-type-options"), "nosniff", as);
    ok(!/html|javascript|svg/.test(answer.headers.get("content-type") ?? ""), `${as} comes as ${answer.headers.get("content-type")}`);
    if (as === "har" && answer.ok) JSON.parse(text);
  }
  for (const [name, id] of ids.slice(0, 20)) for (const accept of ["text/html", "image/svg+xml", "*/*"]) {
    const answer = await fetch(`${relay.origin}/api/v1/events/${id}/body`, { headers: { authorization: `Bearer ${relay.admin_token}`, accept } });
    if (!answer.ok) continue;
    equal(answer.headers.get("content-type"), "application/octet-stream", name);
    ok(/attachment/.test(answer.headers.get("content-disposition") ?? ""), `${name}: no attachment`);
    ok(/sandbox/.test(answer.headers.get("content-security-policy") ?? ""), `${name}: no sandbox`);
  }
}

/// What a page of another origin tries; it tells what it could read.
const ATTEMPTS = `async (relay) => {
  const out = [];
  for (const [path, options] of [["/", {}], ["/events", {}], ["/events", { credentials: "include", mode: "cors" }], ["/events", { headers: { authorization: "Bearer x" } }]])
    out.push(await fetch(relay + "/api/v1" + path, options).then(async (answer) => answer.type + answer.status + await answer.text(), () => "failed"));
  for (const path of ["/endpoints/github/pause", "/bulk", "/tokens"])
    out.push(await fetch(relay + "/api/v1" + path, { method: "POST", mode: "no-cors", body: '{"action":"drop","q":""}', headers: { "content-type": "text/plain" } }).then(async (answer) => answer.type + answer.status + await answer.text(), () => "failed"));
  return out;
}`;

async function others() {
  const server = createServer((came, answer) => answer.writeHead(200, { "content-type": "text/html" }).end("<title>other</title>"));
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address();
  const me = await Person.come({ origin: relay.origin });
  try {
    await me.open(await relay.page()).then((page) => page.locator("main").waitFor());
    for (const origin of [`http://127.0.0.1:${port}`, `http://localhost:${port}`, `http://evil.test:${port}`]) {
      const page = await me.open(`${origin}/`);
      const read = await page.evaluate(`(${ATTEMPTS})(${JSON.stringify(relay.origin)})`);
      ok(read.every((one) => one === "failed" || one === "opaque0"), `${origin} could read: ${read.join(" ")}`);
      await page.close();
    }
    // Under a name that leads here (DNS rebinding): everything is of one origin, so only the name can tell.
    const rebound = await me.open(`http://evil.test:${relay.admin.split(":")[1]}/`);
    const read = await rebound.evaluate(`(${ATTEMPTS})(location.origin)`);
    ok(read.every((one) => /^basic(421|403)/.test(one)), `rebinding could read: ${read.join(" ")}`);
    ok(!(await rebound.evaluate(() => document.cookie + JSON.stringify(localStorage))).includes("relay"), "it sees the page's storage");
    equal((await relay.call("GET", "/endpoints/github")).paused, false, "paused by another page");
    const cookies = await me.context.cookies();
    equal(cookies, [], "cookies on loopback");
  } finally {
    await me.leave();
    server.close();
  }
}

async function forged() {
  const [hostname, port] = relay.admin.split(":");
  for (const host of ["evil.test", `evil.test:${port}`, "127.0.0.1.nip.io", "localhost.evil.test", "x@localhost"]) {
    const status = await new Promise((done, fail) => request({ hostname, port, path: "/api/v1/events", headers: { host, authorization: `Bearer ${relay.admin_token}` } }, (answer) => { answer.resume(); done(answer.statusCode); }).on("error", fail).end());
    ok([400, 403, 421].includes(status), `${host}: ${status}`);
  }
  await until("it still answers", async () => relay.call("GET", "/events"));
}

await steps([
  ["webhooks that mean harm", fill], ["exports and bodies", exports], ["every view, light", () => every("light")], ["every view, dark", () => every("dark")],
  ["pages of other origins", others], ["forged hosts", forged], ["the browser ends", close],
]);
