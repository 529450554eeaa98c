// The pictures of the guides, taken of a relay that has some of everything. Writes `docs/inspect-light.png` and
// `docs/inspect-dark.png`; `RELAY_PROGRAM` names the program of relay and agent, as everywhere here.

import { writeFile } from "node:fs/promises";
import { Person } from "./browser.mjs";
import { row } from "./journey.mjs";
import { Agent, Handler, Relay, end, ok, run, until } from "./lib.mjs";

const DOCS = new URL("../../docs/", import.meta.url).pathname;
const SECRET = "It's a Secret to Everybody";
const endpoint = (name, provider, more = "") => `[[endpoint]]\nname = "${name}"\nverify = { provider = "${provider}", secrets = ["env:HOOK_SECRET"] }\n${more}\n`;
const TABLES = [
  endpoint("github", "github"), endpoint("pay", "stripe", '[endpoint.retry]\nschedule = ["2s"]'), endpoint("shop", "shopify", '[endpoint.retry]\nschedule = ["100ms"]'),
  endpoint("chat", "slack", 'mode = "live"'), endpoint("wiki", "github", 'wait_for_agent = "0s"'),
].join("");

/// What is sent, the oldest first: endpoint, provider, type, and how long the handler takes.
const SENT = [
  ["github", "github", "push", 12], ["shop", "shopify", "orders/paid", 26], ["github", "github", "pull_request.opened", 34], ["chat", "slack", "", 8], ["pay", "stripe", "charge.succeeded", 110],
  ["shop", "shopify", "products/update", 13], ["github", "github", "pull_request.synchronize", 27], ["github", "github", "push", 18], ["shop", "shopify", "inventory_levels/update", 51], ["chat", "slack", "", 5],
  ["pay", "stripe", "customer.subscription.updated", 64], ["shop", "shopify", "orders/paid", 6], ["github", "github", "push", 186], ["wiki", "github", "gollum", 0], ["shop", "shopify", "refunds/create", 21],
  ["github", "github", "issues.opened", 40], ["chat", "slack", "", 1750], ["github", "github", "check_run.completed", 3], ["shop", "shopify", "orders/create", 0, "--bad-signature"], ["pay", "stripe", "invoice.payment_failed", 700],
  ["github", "github", "pull_request.opened", 34],
];
const BODY = (type, n) => ({ id: `evt_1SVq4rNw${n}`, object: "event", api_version: "2026-09-30", created: 1795874754 + n, type, data: { object: { id: `in_1SVq4nNw${n}`, customer: "cus_T9aQ", amount_due: 4900, currency: "eur", attempt_count: 2, status: "open", metadata: { plan: "team", note: "naïve €" } } }, livemode: false });

const calls = new Map();
/// The first call of a payment fails; refunds fail for good.
function answer({ headers, body }) {
  const type = headers["x-github-event"] ?? headers["x-shopify-topic"] ?? /"type":"([\w.]+)"/.exec(body)?.[1] ?? "", id = headers["relay-event-id"];
  calls.set(id, (calls.get(id) ?? 0) + 1);
  const wait = SENT[/nr=(\d+)/.exec(headers["user-agent"])[1]][3];
  const said = type === "refunds/create" ? [500, "no such column: refunds.reason"] : type === "invoice.payment_failed" ? (calls.get(id) === 1 ? [500, "database is starting"] : [201, '{"ok":true}']) : [200, '{"taken":true}'];
  return new Promise((done) => { setTimeout(() => done({ status: said[0], headers: { "content-type": "application/json" }, body: said[1] }), wait); });
}

try {
  const relay = await Relay.start(TABLES, { env: { HOOK_SECRET: SECRET } }), secret = `${relay.directory}/secret`, file = `${relay.directory}/body`;
  await writeFile(secret, SECRET, { mode: 0o600 });
  const handler = await new Handler(answer).start();
  for (const [name, agent] of [["github", "laptop-mara"], ["shop", "laptop-mara"], ["pay", "edge-1"], ["chat", "edge-1"]]) await Agent.start(relay, name, handler.port, { name: agent });
  for (const [n, [to, provider, type, wait, ...more]] of SENT.entries()) {
    const path = { github: "/hooks", shop: "/orders", chat: "/commands" }[to] ?? "", header = { github: ["-H", `x-github-event: ${type}`], shopify: ["-H", `x-shopify-topic: ${type}`] }[provider] ?? [];
    const body = provider === "slack" ? `token=x&command=%2F${wait > 1000 ? "deploy" : "status"}&text=billing+${n}` : JSON.stringify(BODY(type, n));
    await writeFile(file, body);
    const { code, out, err } = await run("client", ["send", provider, "--to", relay.url(to) + path, "--secret-file", secret, "--file", file, "-H", `user-agent: sender nr=${n}`, ...header, ...more]);
    ok(code === 0 || more.length, `${provider} ${type}: ${out}${err}`);
  }
  const paid = (await relay.call("GET", "/events?q=type:invoice.payment_failed")).events[0];
  await until("the payment got through", async () => (await relay.call("GET", `/events/${paid.id}`)).state === "delivered");
  const { events: [github] } = await relay.call("GET", "/events?q=type:push");
  await relay.call("POST", `/events/${github.id}/replay?to=endpoint`, {});
  for (const theme of ["light", "dark"]) {
    const person = await Person.come({ origin: relay.origin, theme }), page = await person.open(await relay.page());
    await row(page, "invoice.payment_failed").click();
    await page.locator(".detail .facts").waitFor();
    await page.locator(".detail pre .ln").first().waitFor();
    await page.locator(".vol").waitFor();
    await page.mouse.move(1000, 560);
    await page.screenshot({ path: `${DOCS}inspect-${theme}.png` });
    await person.leave();
  }
} finally {
  await end();
}
process.exit(0);
