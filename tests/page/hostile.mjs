// Hostile content through every view, tab, form, sheet and export of the page, the relay's and the agent's: it stays
// text. And pages of other origins: they can neither read nor act.

import { createServer, request } from "node:http";
import { Person, picture } from "./browser.mjs";
import { BODIES, TEXTS } from "./corpus.mjs";
import { signed, search } from "./journey.mjs";
import { Agent, Handler, equal, ok, steps, until } from "./lib.mjs";
import { TABLES, relay as start } from "./scene.mjs";

/// `events` are `{name, id, plain, kept}`, oldest first; of a `plain` one only the head is hostile.
let relay, agent;
const events = [];

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

async function fill() {
  relay = await start(TABLES.replace('schedule = ["100ms"]', 'schedule = ["1h"]'));
  // The answer is as bad as the webhook was.
  const handler = await new Handler((came) => ({
    status: came.headers["x-bad"] ? 500 : 200, headers: { "content-type": came.headers["content-type"] ?? "text/html", "x-echo": came.headers["x-note"] ?? "" },
    body: came.body.subarray(0, 60_000),
  })).start();
  agent = await Agent.start(relay, "github", handler.port, { name: "<svg/onload=alert(1)>", args: ["--inspect-addr", "127.0.0.1:0"] });
  await Agent.start(relay, "ask", handler.port, { name: "<img/src=x/onerror=alert(1)>" });
  for (const [at, [name, type, body, encoding]] of BODIES.entries()) {
    const text = TEXTS[at % TEXTS.length], bytes = Buffer.from(body);
    const came = await post(at % 3 ? "/github" : "/ask", bytes, {
      "content-type": type, "x-github-event": text, "x-github-delivery": `${text}${at}`, "x-hub-signature-256": signed(bytes), "x-note": text,
      ...(encoding ? { "content-encoding": encoding } : {}), ...(at % 5 === 1 ? { "x-bad": "1" } : {}),
    });
    ok(came.status < 600 && came.id, `${name}: ${came.status}`);
    events.push({ name, id: came.id, kept: at % 3 > 0 });
  }
  for (const text of TEXTS) {
    const came = await post(`/github/${encodeURIComponent(text)}?q=${encodeURIComponent(text)}`, "{}", { "content-type": text, "x-github-event": text, "x-hub-signature-256": `sha256=${text}` });
    ok([400, 401].includes(came.status), `a wrong signature got ${came.status}`);
    if (came.id) events.push({ name: `refused ${text}`, id: came.id, plain: true });
    await post(`/ask/${text}?${text}`, text, { "x-note": text }).catch(() => null);
  }
}

/// Presses keys one after the other, each followed by a frame, within the page: `{slowest, strange}`, the longest frame
/// in milliseconds, and elements that no script of the page made.
const pressed = (page, keys) => page.evaluate(async (keys) => {
  let slowest = 0;
  const strange = [];
  for (const key of keys) {
    const from = performance.now();
    (document.activeElement ?? document.body).dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    await new Promise((drawn) => { requestAnimationFrame(() => setTimeout(drawn)); });
    slowest = Math.max(slowest, performance.now() - from);
    strange.push(...globalThis.__strange().slice(0, 3).map((html) => `${key}: ${html}`));
  }
  return { slowest, strange };
}, keys);

/// The same, and it must be good. What keeps the page busy for seconds is a failure.
async function press(page, name, keys) {
  const { slowest, strange } = await pressed(page, keys);
  ok(slowest < 3000, `${name} keeps the page busy for ${Math.round(slowest)} ms`);
  equal(strange, [], name);
}

/// What is open in a sheet, from what opens it until it is shut.
async function sheet(page, name, opens, within = async () => null) {
  await opens();
  const dialog = page.getByRole("dialog").last();
  await dialog.waitFor();
  await press(page, name, ["Shift"]);
  await within(dialog);
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
}

/// The detail of an event, whole.
const opened = (page, id) => page.waitForFunction((id) => {
  const detail = document.querySelector(".detail");
  return detail?.querySelector(".facts")?.textContent.includes(id) && !detail.querySelector("[aria-busy=true]");
}, id);

/// Request and answer in three forms each, headers, attempts, and back.
const STATES = ["v", "v", "v", "t", "v", "v", "v", "t", "t", "t"], HEAD = ["t", "t", "t", "t"];

async function event(page, { name, id, plain }) {
  await opened(page, id);
  for (const colorScheme of ["dark", "light"]) {
    await page.emulateMedia({ colorScheme });
    await press(page, name, plain ? HEAD : STATES);
  }
  // A live one that is longer than what is kept cannot be edited.
  if (await page.locator(".acts").getByRole("button", { name: "Edit and replay" }).count()) await sheet(page, `${name}, to be edited`, () => page.keyboard.press("e"));
  else await press(page, `${name}, not to be edited`, ["e"]);
}

/// Every event from the newest to the oldest, as a person goes through a list.
async function every(page, of) {
  const left = new Map(of.map((one) => [one.id, one]));
  await page.locator("[role=row][data-id]").first().waitFor();
  await page.getByRole("grid").focus();
  await page.keyboard.press("Home");
  let before = "";
  while (left.size) {
    const other = page.waitForFunction((before) => {
      const id = document.querySelector("[role=row][aria-selected=true]:not([hidden])")?.dataset.id;
      return id !== before && id;
    }, before);
    const id = await other.then((found) => found.jsonValue(), () => null);
    ok(id, `the list ends before ${[...left.values()].map((one) => one.name)}`);
    const one = left.get(before = id);
    if (one) await event(page, one);
    left.delete(id);
    await page.getByRole("grid").focus();
    await page.keyboard.press("j");
  }
}

async function views() {
  const person = await Person.come({ origin: relay.origin });
  const page = await person.open(await relay.page());
  await page.locator("main").waitFor();
  await every(page, events);
  await person.clean("the list and its events");
  await person.leave();
  return `${events.length} events`;
}

/// Save, compare, replay with what it says, search, and the rooms.
async function acts() {
  const person = await Person.come({ origin: relay.origin });
  const page = await person.open(await relay.page());
  await page.locator("[role=row][data-id]").first().waitFor();
  const said = page.getByRole("status").filter({ hasText: /\S/ }).last();
  for (const { name, id } of events.filter((one) => one.kept).filter((_, at) => at % 8 === 0)) {
    await page.goto(`${relay.origin}/e/${encodeURIComponent(id)}`);
    await opened(page, id);
    const save = page.getByRole("button", { name: "Save…" });
    for (const form of ["Raw body", "curl for a shell", "curl for PowerShell", ".http file", "HAR 1.2", "Cassette"]) {
      await save.click();
      const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: form, exact: true }).click()]).catch(async (error) => {
        throw new Error(`${name} is not saved as ${form}: ${await page.getByRole("dialog").innerText()}: ${error.message}`);
      });
      ok(/^[\w.-]+\.(bin|sh|ps1|http|har|jsonl)$/.test(file.suggestedFilename()), `${name} is saved as ${file.suggestedFilename()}`);
      await file.cancel();
      await page.getByRole("dialog").waitFor({ state: "detached" });
    }
    await page.getByRole("button", { name: "Copy as curl" }).click();
    await said.waitFor();
    await press(page, name, ["Shift"]);
    await person.clean(`${name}, saved`);
  }
  await page.goto(`${relay.origin}/events?q=is:delivered`);
  await page.locator("[role=row][data-id]").first().waitFor();
  await page.getByRole("grid").focus();
  await page.keyboard.press("Home");
  await sheet(page, "where to", () => page.keyboard.press("r"), async (dialog) => {
    await dialog.getByRole("radio").first().check();
    await dialog.getByRole("button", { name: "Replay", exact: true }).click();
  });
  await page.locator(".toast").filter({ hasText: / in / }).waitFor();
  await press(page, "what a replay says", ["Shift"]);
  await person.clean("replayed");

  await page.goto(`${relay.origin}/`);
  await page.locator("[role=row][data-id]").first().waitFor();
  await page.getByRole("grid").focus();
  for (let pair = 0; pair < 15; pair++) {
    await press(page, `pair ${pair}`, ["j", "x", "j", "x"]);
    await sheet(page, `pair ${pair}`, () => page.keyboard.press("="), async (dialog) => {
      for (const part of ["Headers", "Answer", "Timing", "Request body"]) {
        await dialog.getByRole("button", { name: part }).click();
        await dialog.getByText("Comparing…").waitFor({ state: "detached" });
        await press(page, `pair ${pair}, ${part}`, ["Shift"]);
      }
    });
    await press(page, `pair ${pair}`, ["Escape"]);
  }
  await sheet(page, "many marked ones", async () => {
    await press(page, "many", ["Home", "J", "J", "J"]);
    await page.getByRole("group", { name: "Marked events" }).getByRole("button", { name: "Save…" }).click();
  });
  await press(page, "many", ["Escape"]);
  await person.clean("compared");

  // Of a query that is none, and of what is not there, the browser writes a line of its own.
  person.expected.push(/status of 40[04] \(.*\/api\/v1\/(events|endpoints)/);
  const field = search(page);
  for (const text of TEXTS) {
    await field.fill(text);
    await press(page, `the query ${text}`, ["Shift"]);
  }
  for (const key of ["type:", "path:", "agent:", "why:"]) {
    await field.fill("");
    await field.pressSequentially(key);
    await page.getByRole("option").first().waitFor();
    await press(page, `what is offered for ${key}`, ["Shift"]);
  }
  await person.clean("searched");
  await person.leave();
}

async function rooms(theme) {
  const person = await Person.come({ origin: relay.origin, theme });
  await person.open(await relay.page()).then((page) => page.locator("main").waitFor());
  person.expected.push(/status of 40[04] \(.*\/api\/v1\/(events|endpoints)/);
  const page = await person.open("/");
  for (const path of ["/", "/events?q=is:refused", `/events?q=${encodeURIComponent(`"${TEXTS[0]}"`)}`, `/events?q=${encodeURIComponent(TEXTS[2])}`, "/endpoints", "/endpoints/github", `/endpoints/${encodeURIComponent(TEXTS[0])}`, "/agents", "/dead", "/figures", "/access", `/e/${encodeURIComponent(TEXTS[0])}`]) {
    await page.goto(relay.origin + path);
    await page.locator("main").waitFor();
    await page.locator("[aria-busy=true]").waitFor({ state: "detached" });
    await press(page, path, ["Shift"]);
    await picture(page, `hostile-${path.replaceAll(/\W+/g, "-").slice(0, 40)}-${theme}`);
    await person.clean(path);
  }
  await page.goto(`${relay.origin}/e/${events.at(-1).id}?tab=headers`);
  await page.locator(".detail").getByText(TEXTS.at(-1)).first().waitFor();
  await person.clean("refused");
  await person.leave();
}

/// The agent's own page: what it passes on, and what its tap holds.
async function tapped() {
  const address = await agent.page();
  const person = await Person.come({ origin: new URL(address).origin });
  // Of what did not pass through this agent.
  person.expected.push(/status of 404 \(.*\/api\/v1\/agent\/exchanges\//);
  const page = await person.open(address);
  await every(page, events.slice(0, 20));
  await page.getByRole("link", { name: "This agent" }).click();
  const all = page.getByRole("button", { name: /^\S+ \// });
  await all.first().waitFor();
  const many = await all.count();
  for (let at = 0; at < many; at++) {
    await all.nth(at).click();
    await page.getByRole("region", { name: "An exchange" }).waitFor();
    await press(page, `exchange ${at}`, ["Shift"]);
  }
  await picture(page, "hostile-agent");
  await person.clean("the agent's page");
  await person.leave();
  return `${many} exchanges`;
}

async function exports() {
  const headers = { authorization: `Bearer ${relay.admin_token}` };
  await Promise.all(["curl", "curl-ps", "http", "har", "cassette"].map(async (as) => {
    for (const { name, id } of events) {
      const answer = await fetch(`${relay.origin}/api/v1/events/${id}/export?as=${as}`, { headers });
      const text = await answer.text();
      ok(answer.ok || answer.status === 409 || answer.status === 404, `${name} as ${as}: ${answer.status} ${text.slice(0, 200)}`);
      equal(answer.headers.get("x-content-type-options"), "nosniff", as);
      ok(!/html|javascript|svg/.test(answer.headers.get("content-type") ?? ""), `${as} comes as ${answer.headers.get("content-type")}`);
      if (as === "har" && answer.ok) JSON.parse(text);
    }
  }));
  let bodies = 0;
  for (const { name, id } of events) for (const accept of ["text/html", "image/svg+xml", "*/*"]) {
    const answer = await fetch(`${relay.origin}/api/v1/events/${id}/body`, { headers: { ...headers, accept } });
    await answer.arrayBuffer();
    if (!answer.ok) continue;
    bodies++;
    equal(answer.headers.get("content-type"), "application/octet-stream", name);
    ok(/attachment/.test(answer.headers.get("content-disposition") ?? ""), `${name}: no attachment`);
    ok(/sandbox/.test(answer.headers.get("content-security-policy") ?? ""), `${name}: no sandbox`);
  }
  ok(bodies > BODIES.length, `only ${bodies} bodies came`);
  return `${events.length} events, ${bodies} bodies`;
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

await fill();
await steps(
  [["the list and every event, light and dark", views]],
  [["exports and bodies", exports], ["save, replay, compare, search", acts], ["pages of other origins", others], ["forged hosts", forged]],
  [["the agent's page", tapped], ["the rooms, light", () => rooms("light")], ["the rooms, dark", () => rooms("dark")]],
);
