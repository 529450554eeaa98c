// The walks: the journey with a mouse, the same with the keyboard alone, where the focus is always seen and never lost,
// and what must hold at a first run and when the relay freezes, starts again, ends a session, has many tabs, or is gone.
//
// Each has a relay and a browser's profile of its own, so they go side by side.

import { execFile } from "node:child_process";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { Person, picture } from "./browser.mjs";
import { Keys, Mouse } from "./hands.mjs";
import { Journey, row, search } from "./journey.mjs";
import { Agent, Handler, Relay, equal, github, ok, sha256, steps, until } from "./lib.mjs";
import { SECRET, relay as start } from "./scene.mjs";

const PATIENCE = { timeout: 20_000 };

async function first() {
  const relay = await Relay.start();
  const token = (await relay.process.line(/RELAY_TOKEN=(\S+)/))[1];
  const handler = await new Handler().start();
  const person = await Person.come({ origin: relay.origin });
  const page = await person.open(await relay.page());
  await page.getByRole("heading", { name: "Nothing has come yet" }).waitFor(PATIENCE);
  ok(!page.url().includes("#"), `the key stays in the address: ${page.url()}`);
  await page.getByText(/Waiting for an agent/).waitFor();
  const agent = await Agent.start(relay, "dev", handler.port, { token });
  await page.getByText("laptop-mara is attached").waitFor(PATIENCE);
  await picture(page, "first");
  const step = page.getByRole("listitem").filter({ hasText: "yourself" });
  await step.getByRole("button", { name: "Copy" }).click();
  const command = await page.evaluate(() => navigator.clipboard.readText());
  ok(command.startsWith("curl "), `copied: ${command}`);
  await promisify(execFile)("sh", ["-c", command]);
  await row(page, "200").waitFor(PATIENCE);
  equal(await page.locator("[role=row][aria-selected]").count(), 1, "rows");
  equal(handler.requests.length, 1, "calls of the handler");
  await person.clean("first run");
  await person.leave();
  await agent.stop();
  await relay.stop();
}

/// A person at a list with a query, all of its rows in sight.
async function watching(relay, query) {
  const person = await Person.come({ origin: relay.origin });
  await person.open(await relay.page()).then((page) => page.locator("main").waitFor());
  const page = await person.open(`/events?q=${query}`);
  await search(page).waitFor();
  return [person, page];
}

const shown = (page) => page.locator("[role=row][data-id]").evaluateAll((rows) => rows.map((one) => one.dataset.id));

/// Every event of a type is one row: none is missing or twice.
async function complete(page, relay, type) {
  const { events } = await relay.call("GET", `/events?q=type:${type}&limit=1000`);
  const expected = events.map((one) => one.id);
  await until(`${expected.length} rows of ${type}`, async () => JSON.stringify(await shown(page)) === JSON.stringify(expected)).catch(async (error) => {
    throw new Error(`${error.message}: ${(await shown(page)).length} rows of ${expected.length}`);
  });
  return expected.length;
}

async function frozen() {
  const relay = await start();
  const [person, page] = await watching(relay, "type:frozen");
  person.expected.push(/Failed to load resource|net::ERR|429|503|401/);
  let n = 0;
  // A relay that stood still may end what was under way; its sender tries again.
  const send = async (many) => {
    for (let i = 0; i < many; i++) await until("it is taken", () => github(relay, "pay", SECRET, `{"n":${n}}`, { type: "frozen", id: `frozen-${n}` }).catch(() => null)).then(() => { n++; });
  };
  await send(4);
  await complete(page, relay, "frozen");
  relay.process.signal("SIGSTOP");
  const waiting = send(4);
  await page.getByText(/No news since/).waitFor({ timeout: 30_000 });
  await picture(page, "frozen");
  relay.process.signal("SIGCONT");
  await waiting;
  await page.getByText(/No news since/).waitFor({ state: "detached", timeout: 45_000 });
  await complete(page, relay, "frozen");
  await relay.process.stop();
  await page.getByText(/No news since|cannot be reached/).first().waitFor({ timeout: 45_000 });
  await relay.restart();
  await send(2);
  // Sessions end with the relay that opened them.
  const dialog = page.getByRole("dialog");
  await dialog.waitFor({ timeout: 45_000 });
  await dialog.getByRole("textbox").or(dialog.locator("input")).first().fill(await relay.page());
  await page.keyboard.press("Enter");
  await dialog.waitFor({ state: "detached" });
  const rows = await complete(page, relay, "frozen");
  await person.clean("frozen");
  await person.leave();
  await relay.stop();
  return `${rows} rows`;
}

async function tabs() {
  const relay = await start();
  const [person, firstTab] = await watching(relay, "");
  const streams = () => person.asked.filter((one) => one.endsWith("/stream")).length;
  const all = (await Promise.all(Array.from({ length: 7 }, () => person.open("/")))).concat(firstTab);
  for (const page of all) await search(page).waitFor();
  await github(relay, "pay", SECRET, "{}", { type: "tabs" });
  for (const page of all) await complete(page, relay, "tabs");
  const before = streams();
  // The tab that logged in reads the stream for all.
  equal(before, 1, "streams of eight tabs");
  await person.context.pages()[0].close();
  for (let n = 0; n < 3; n++) await github(relay, "pay", SECRET, `{"n":${n}}`, { type: "tabs" });
  await until("another tab reads the stream", () => streams() === 2);
  for (const page of all) await complete(page, relay, "tabs");
  await person.clean("tabs");
  await person.leave();
  await relay.stop();
}

async function expired() {
  const relay = await start();
  const [person, page] = await watching(relay, "type:typed");
  person.expected.push(/401|Failed to load resource/);
  await github(relay, "pay", SECRET, '{"typed":1}', { type: "typed" });
  await row(page, "typed").click();
  await page.keyboard.press("e");
  const editor = page.getByRole("dialog").getByRole("textbox", { name: "Body" });
  await editor.fill('{"typed":"by hand"}');
  for (const { id } of (await relay.call("GET", "/sessions")).sessions) await relay.call("DELETE", `/sessions/${id}`);
  await page.keyboard.press("Control+Enter");
  const asks = page.getByRole("dialog").filter({ hasText: /key has expired/i });
  await asks.waitFor(PATIENCE);
  await picture(page, "expired");
  await asks.locator("input").first().fill(await relay.page());
  await page.keyboard.press("Enter");
  await asks.waitFor({ state: "detached" });
  equal(await editor.inputValue(), '{"typed":"by hand"}', "the text in the editor");
  equal((await relay.call("GET", "/events?q=is:replay")).events.length, 0, "a failed action is not repeated by itself");
  await person.clean("expired");
  await person.leave();
  await relay.stop();
}

async function pulled() {
  const relay = await start();
  const handler = await new Handler().start();
  const agent = await Agent.start(relay, "github", handler.port, { args: ["--inspect-addr", "127.0.0.1:0"] });
  const address = await agent.page();
  await github(relay, "github", SECRET, '{"seen":"at the socket"}', { type: "tapped" });
  const person = await Person.come({ origin: new URL(address).origin });
  person.expected.push(/Failed to load resource|net::ERR|50[234]/);
  const page = await person.open(address);
  await row(page, "tapped").waitFor(PATIENCE);
  await relay.process.stop();
  await page.getByRole("link", { name: "This agent" }).click();
  await page.getByRole("heading", { name: "This agent" }).waitFor();
  await page.getByText(`127.0.0.1:${handler.port}`).first().waitFor(PATIENCE);
  await page.getByRole("button", { name: /^POST/ }).first().click();
  await page.getByText("at the socket").waitFor(PATIENCE);
  await page.getByText(sha256('{"seen":"at the socket"}')).first().waitFor();
  await picture(page, "pulled");
  await person.clean("the cable is pulled");
  await person.leave();
  await agent.stop();
}

async function live() {
  const relay = await start(), handler = await new Handler().start(), agent = await Agent.start(relay, "ask", handler.port);
  const send = (body) => fetch(relay.url("ask"), { method: "POST", body, headers: { "content-type": "text/plain", "x-note": "one" } }).then((answer) => answer.headers.get("relay-event-id"));
  const id = await send("as it came"), long = await send("x".repeat(100_000));
  const person = await Person.come({ origin: relay.origin }), page = await person.open(await relay.page()).then((page) => page.locator("main").waitFor().then(() => page));
  const button = (name) => page.locator(".detail").getByRole("button", { name });
  await page.locator(`[data-id="${id}"]`).click();
  await button(/^Copy as curl/).waitFor(PATIENCE);
  await button(/^Replay/).click();
  const asks = page.getByRole("dialog", { name: /where to/i });
  await asks.getByRole("radio").first().waitFor(PATIENCE);
  equal(await asks.getByRole("radio").count(), 1, "places: what is live goes to one agent alone");
  await asks.getByRole("button", { name: "Replay", exact: true }).click();
  await until("the handler is called again", () => handler.requests.length === 3);
  const again = handler.requests.at(-1);
  equal([again.body.toString(), again.headers["x-note"], again.headers["relay-replay-of"]], ["as it came", "one", id], "what the handler got");
  await page.locator(".toast").filter({ hasText: /200 in / }).waitFor();
  await page.locator(`[data-id="${long}"]`).click();
  await page.getByText(/cannot be replayed, copied or saved/).waitFor(PATIENCE);
  for (const name of [/^Replay/, /^Edit/, /^Copy as curl/, /^Save/]) equal(await button(name).count(), 0, `buttons ${name}`);
  await picture(page, "live");
  await person.clean("live exchanges");
  await person.leave();
  await agent.stop();
  await relay.stop();
}

/// More events than the list holds: all of them come as one scrolls, and the newest once one is back at the top. The page
/// is a copy whose list holds fewer rows.
async function long() {
  const pages = await mkdtemp(join(tmpdir(), "relay-page-static-")), held = join(pages, "rows.js");
  await cp(new URL("../../page/static/", import.meta.url), pages, { recursive: true });
  await writeFile(held, ok((await readFile(held, "utf8")).replace("max = 30_000", "max = 600"), "a list of 600 rows"));
  const relay = await start(undefined, { env: { RELAY_PAGE_DIR: pages } });
  let left = 1200;
  await Promise.all(Array.from({ length: 16 }, async () => { while (left-- > 0) await github(relay, "pay", SECRET, `{"n":${left}}`, { type: left % 2 ? "odd" : "even" }); }));
  for (const query of ["", "type:odd,even"]) {
    const [person, page] = await watching(relay, query);
    const first = await relay.call("GET", `/events?limit=1000&q=${query}`), rest = await relay.call("GET", `/events?limit=1000&q=${query}&after=${first.next}`);
    const all = [...first.events, ...rest.events].map((one) => one.id), seen = new Set();
    await until("all are seen", async () => {
      for (const id of await shown(page)) seen.add(id);
      await page.evaluate(() => new Promise((drawn) => {
        document.querySelector(".rows").scrollTop += 400;
        requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(drawn)));
      }));
      return seen.has(all.at(-1));
    }, 60_000);
    equal(all.filter((id) => !seen.has(id)).length, 0, "events that were not seen on the way down");
    await github(relay, "pay", SECRET, "{}", { type: "even", id: `last-${query}` });
    const [last] = (await relay.call("GET", "/events?limit=1")).events;
    await page.getByRole("button", { name: "the newest" }).click();
    await page.locator(`[data-id="${last.id}"]`).waitFor(PATIENCE);
    await person.clean("a long list");
    await person.leave();
  }
  await relay.stop();
  await rm(pages, { recursive: true });
}

await steps(
  new Journey(Mouse).steps(), new Journey(Keys).steps(),
  [["1 a first run", first], ["10 the relay freezes and starts again", frozen], ["11 eight tabs", tabs], ["12 the key expires", expired], ["13 the cable is pulled", pulled], ["14 live exchanges", live], ["15 a long list", long]],
);
