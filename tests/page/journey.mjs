// What a person does with webhooks, step by step, with a mouse or with the keyboard alone (`hands`).
//
// Each step asserts what is seen, and what the relay and the handler say of it.

import { createHmac } from "node:crypto";
import { Person, picture } from "./browser.mjs";
import { held } from "./hands.mjs";
import { Agent, Handler, equal, github, ok, run, sha256, until } from "./lib.mjs";
import { SECRET, relay as start } from "./scene.mjs";

const PATIENCE = { timeout: 20_000 };
/// How many events lie over the one that is searched for.
const BACK = Number(process.env.BACK ?? 20_000);

export const signed = (body) => `sha256=${createHmac("sha256", SECRET).update(body).digest("hex")}`;

/// The row of the list with such a text in it.
export const row = (page, text) => page.locator("[role=row]").filter({ hasText: text }).first();
export const search = (page) => page.getByRole("combobox", { name: "Search" });
export const detail = (page) => page.locator(".detail");
const sheet = (page) => page.getByRole("dialog").last();
/// `Escape` until no sheet is open.
async function shut(page) {
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").first().waitFor({ state: "detached" });
  await held(page);
}

export class Journey {
  constructor(Hands) {
    Object.assign(this, { Hands, verdict: null });
  }

  async begin() {
    this.relay = await start();
    // As GitHub's own library checks it, where that is there.
    const octokit = await import("../sdk/node_modules/@octokit/webhooks-methods/dist-src/index.js").catch(() => null);
    this.handler = await new Handler(async ({ headers, body }) => {
      const proof = headers["x-hub-signature-256"] ?? "";
      const good = octokit ? await octokit.verify(SECRET, body.toString(), proof).catch(() => false) : proof === signed(body);
      if (!good) return { status: 401, body: "the signature is not right" };
      return this.verdict ?? { status: 200, headers: { "content-type": "application/json" }, body: '{"taken":true}' };
    }).start();
    this.agent = await Agent.start(this.relay, "github", this.handler.port);
    this.person = await Person.come({ origin: this.relay.origin });
    this.page = await this.person.open(await this.relay.page());
    this.hands = new this.Hands(this.page);
    await this.page.locator("main").waitFor();
    return octokit ? "GitHub's own library verifies" : "GitHub's library is not there; the signature is computed";
  }

  async arrives() {
    const secret = `${this.relay.directory}/secret`;
    await import("node:fs/promises").then(({ writeFile }) => writeFile(secret, SECRET, { mode: 0o600 }));
    const seen = row(this.page, "push").waitFor({ ...PATIENCE }).then(() => Date.now());
    const { code, out, err } = await run("client", ["send", "github", "--to", this.relay.url("github"), "--secret-file", secret]);
    equal(code, 0, `send: ${out}${err}`);
    const ms = await seen - this.handler.requests.at(-1).at;
    ok(ms < 5000, `the row came ${ms} ms after the handler's call`);
    const { events: [one] } = await this.relay.call("GET", "/events?limit=1");
    await until("it is delivered", async () => (await this.relay.call("GET", `/events/${one.id}`)).state === "delivered");
    const { hops, event_type: type } = this.first = await this.relay.call("GET", `/events/${one.id}`);
    ok(hops.length >= 5, `only ${hops.length} hops: ${JSON.stringify(hops)}`);
    hops.forEach((hop, at) => ok(!at || hop.at_us >= hops[at - 1].at_us, `${hop.what} is before ${hops[at - 1]?.what}`));
    await this.open(row(this.page, type));
    await detail(this.page).getByText(/Delivered/).first().waitFor(PATIENCE);
    await detail(this.page).getByText("The way it took").waitFor();
    return `${ms} ms after the handler, ${hops.length} hops`;
  }

  async open(one) {
    if (this.Hands.name === "Mouse") return one.click();
    const grid = this.page.getByRole("grid");
    await this.hands.reach(grid);
    for (let n = 0; n < 60 && await one.getAttribute("aria-selected") !== "true"; n++) await this.page.keyboard.press(n ? "j" : "Home");
    equal(await one.getAttribute("aria-selected"), "true", "the row is selected");
    await this.page.keyboard.press("Enter");
    return undefined;
  }

  async shapes() {
    const body = '{"one": 1.0,\n "two":"naïve €"}';
    const { id } = await github(this.relay, "github", SECRET, body, { type: "shapes" });
    await row(this.page, "shapes").waitFor(PATIENCE);
    await this.open(row(this.page, "shapes"));
    await detail(this.page).getByText("shapes").first().waitFor(PATIENCE);
    await detail(this.page).getByText('"two"').first().waitFor();
    await this.hands.press(detail(this.page).getByRole("button", { name: "Raw" }).first());
    await detail(this.page).getByText('"one": 1.0,').first().waitFor();
    await this.hands.press(detail(this.page).getByRole("button", { name: "Hex" }).first());
    await detail(this.page).getByText("7b 22 6f 6e 65").first().waitFor();
    equal(this.handler.requests.at(-1).body.toString(), body, "what the handler got");
    const raw = await fetch(`${this.relay.origin}/api/v1/events/${id}/body`, { headers: { authorization: `Bearer ${this.relay.admin_token}` } });
    equal(Buffer.from(await raw.arrayBuffer()).toString(), body, "the raw bytes");
    const told = await this.relay.call("GET", `/events/${id}`);
    equal([told.body.sha256, told.same_at_handler], [sha256(body), true], "the checksum");
    await detail(this.page).getByText(`same bytes at the handler, says ${told.agent}`).waitFor(PATIENCE);
    await picture(this.page, `event-${this.Hands.name}`);
    await this.person.clean("event");
  }

  /// The form of edit and replay, with one value changed and a kind of signature chosen.
  async edit(type, from, to, signature) {
    await this.open(row(this.page, type));
    await detail(this.page).getByText(type).first().waitFor(PATIENCE);
    await this.page.keyboard.press("e");
    const form = sheet(this.page);
    const body = form.getByRole("textbox", { name: "Body" });
    await body.waitFor();
    const text = await body.inputValue();
    ok(text.includes(from), `the editor holds ${text.slice(0, 200)}`);
    await this.hands.write(body, text.replace(from, to));
    await this.hands.press(form.getByRole("radio", { name: signature }));
    await this.page.keyboard.press("Control+Enter");
    return form;
  }

  async edited() {
    await github(this.relay, "github", SECRET, '{"amount": 1, "kept": true}', { type: "edited" });
    await row(this.page, "edited").waitFor(PATIENCE);
    const before = this.handler.requests.length;
    let form = await this.edit("edited", '"amount": 1', '"amount": 42', /^Sign afresh/);
    await until("the handler is called", () => this.handler.requests.length > before);
    const came = this.handler.requests.at(-1);
    equal(JSON.parse(came.body), { amount: 42, kept: true }, "the changed body");
    equal(came.headers["x-hub-signature-256"], signed(came.body), "the signature of the changed body");
    await form.getByText(/200/).first().waitFor(PATIENCE);
    await picture(this.page, `edit-${this.Hands.name}`);
    await shut(this.page);
    // The draft is as it was left.
    form = await this.edit("edited", '"amount": 42', '"amount": 43', /^Keep/);
    await form.getByText(/401/).first().waitFor(PATIENCE);
    await shut(this.page);
    await this.person.clean("edit");
  }

  async searched() {
    const word = `needle${crypto.randomUUID().slice(0, 8)}`;
    await github(this.relay, "github", SECRET, JSON.stringify({ note: `a ${word} in hay` }), { type: "haystack" });
    const from = Date.now();
    let left = BACK;
    await Promise.all(Array.from({ length: 48 }, async () => {
      while (left-- > 0) await github(this.relay, "pay", SECRET, `{"hay":${left}}`, { type: "hay" });
    }));
    const filled = Date.now() - from;
    await this.page.keyboard.press("Escape");
    const field = search(this.page);
    await this.hands.write(field, word);
    const further = this.page.getByRole("button", { name: /further/i });
    await until("the event is found", async () => {
      if (await row(this.page, "haystack").isVisible()) return true;
      if (await further.isVisible() && await further.isEnabled()) await this.hands.press(further).catch(() => null);
      return false;
    }, 60_000);
    await this.page.getByText(/looked at/i).first().waitFor();
    const address = this.page.url();
    ok(address.includes(word), `the address is ${address}`);
    const second = await this.person.open(address);
    equal(await search(second).inputValue(), word, "the query in a second tab");
    await second.close();
    await this.page.goBack();
    await until("Back undoes the search", async () => !(await field.inputValue()).includes(word));
    await this.person.clean("search");
    return `${BACK} events in ${filled} ms`;
  }

  async filtered() {
    const field = search(this.page);
    await this.hands.write(field, "type:wanted");
    await until("the address holds it", () => this.page.url().includes("wanted"));
    await github(this.relay, "github", SECRET, "{}", { type: "unwanted" });
    await github(this.relay, "github", SECRET, '{"a":1}', { type: "wanted" });
    await row(this.page, "wanted").waitFor(PATIENCE);
    equal(await this.page.locator("[role=row]").filter({ hasText: "unwanted" }).count(), 0, "rows that do not match");
    await this.hands.write(field, "");
    await row(this.page, "unwanted").waitFor(PATIENCE);
  }

  async dead() {
    const dead = async () => (await this.relay.call("GET", "/events?state=dead&limit=100")).events.filter((one) => one.event_type === "dies").length;
    await this.handler.stop();
    for (let n = 0; n < 4; n++) await github(this.relay, "github", SECRET, `{"dead":${n}}`, { type: "dies" });
    await until("four dead letters", async () => await dead() === 4, 60_000);
    await this.hands.press(this.page.getByRole("link", { name: /Dead letters/ }));
    const group = this.page.locator(".group").filter({ hasText: "4 events" });
    await group.waitFor(PATIENCE);
    await picture(this.page, `dead-${this.Hands.name}`);
    await this.handler.start();
    await this.hands.press(group.getByRole("button", { name: /Revive all/ }));
    await this.hands.press(sheet(this.page).getByRole("button", { name: /Revive/ }));
    await this.page.getByRole("progressbar").first().waitFor(PATIENCE);
    await this.page.getByText(/4 events revived/).waitFor({ timeout: 60_000 });
    await group.waitFor({ state: "detached", timeout: 60_000 });
    equal(await dead(), 0, "dead letters of this kind");
    await until("the handler got all four", () => this.handler.requests.filter((one) => one.headers["x-github-event"] === "dies").length === 4);
    await this.person.clean("dead letters");
    await this.hands.press(this.page.getByRole("link", { name: "Events", exact: true }));
  }

  async refused() {
    const before = this.handler.requests.length;
    const sent = '{"a":1,"b":[1,2]}';
    const { status, id } = await github(this.relay, "github", SECRET, JSON.stringify(JSON.parse(sent), null, 2), { type: "changed", signature: signed(sent) });
    equal(status, 401, "its status");
    await row(this.page, "401").waitFor(PATIENCE);
    await this.open(row(this.page, "401"));
    equal((await this.relay.call("GET", `/events/${id}`)).state, "refused", "its state");
    // One explanation is under way at a time; the relay's own comes soon after the request.
    const sentence = await until("the relay says why", async () => {
      const told = (await this.relay.call("GET", `/events/${id}`)).sentence;
      return /encoded|spaces|compact|parsed/i.test(told) && told;
    });
    await detail(this.page).getByText("Refused").first().waitFor(PATIENCE);
    await this.page.keyboard.press("w");
    await detail(this.page).getByText(/encoded|spaces|compact|parsed/i).first().waitFor(PATIENCE);
    equal(this.handler.requests.length, before, "calls of the handler");
    await picture(this.page, `refused-${this.Hands.name}`);
    await this.person.clean("refused");
    return sentence;
  }

  steps() {
    const with_ = this.Hands.name.toLowerCase();
    return [
      [`0 begin, ${with_}`, () => this.begin()], [`2 a webhook arrives, ${with_}`, () => this.arrives()], [`3 its forms, ${with_}`, () => this.shapes()],
      [`4 edit and replay, ${with_}`, () => this.edited()], [`5 search, ${with_}`, () => this.searched()], [`6 a filtered list is live, ${with_}`, () => this.filtered()],
      [`7 dead letters, ${with_}`, () => this.dead()], [`8 a refusal, ${with_}`, () => this.refused()],
    ];
  }
}

