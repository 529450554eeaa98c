// A relay with some of everything: delivered, rejected, refused, dead and waiting events, live exchanges, an agent.

import { Agent, Handler, Relay, github, until } from "./lib.mjs";

export const SECRET = "It's a Secret to Everybody";

export const TABLES = `
[[endpoint]]
name = "github"
verify = { provider = "github", secrets = ["env:HOOK_SECRET"] }
[endpoint.retry]
schedule = ["100ms"]
[[endpoint]]
name = "pay"
verify = { provider = "github", secrets = ["env:HOOK_SECRET"] }
wait_for_agent = "0s"
[[endpoint]]
name = "ask"
mode = "live"
verify = "none"
`;

/// What the handler says to which type of event.
const ANSWERS = {
  "issues.opened": { status: 500, body: "no such column: refunds.reason" },
  "pull_request.closed": { status: 422, body: '{"error":"not a pull request of ours"}' },
};

export async function relay(tables = TABLES, options = {}) {
  return Relay.start(tables, { ...options, env: { HOOK_SECRET: SECRET, ...options.env } });
}

export async function scene() {
  const at = await relay();
  const handler = await new Handler((request) => ANSWERS[request.headers["x-github-event"]] ?? { status: 200, headers: { "content-type": "application/json" }, body: '{"taken":true}' }).start();
  const agent = await Agent.start(at, "github", handler.port, { args: ["--inspect-addr", "127.0.0.1:0"] });
  const asks = await Agent.start(at, "ask", handler.port, { name: "edge-1" });
  const body = (n) => JSON.stringify({ ref: "refs/heads/main", n, commits: [{ id: "0d1a26e", message: "Carry the ones" }], note: "naïve €" }, null, n % 2);
  for (let n = 0; n < 6; n++) await github(at, "github", SECRET, body(n), { type: n % 2 ? "push" : "pull_request.opened", path: `/hooks?n=${n}` });
  await github(at, "github", SECRET, body(7), { type: "pull_request.closed" });
  for (let n = 0; n < 3; n++) await github(at, "github", SECRET, body(10 + n), { type: "issues.opened" });
  await github(at, "github", SECRET, body(20), { signature: `sha256=${"0".repeat(64)}` });
  await github(at, "pay", SECRET, body(21), { type: "invoice.paid" });
  await fetch(at.url("ask"), { method: "POST", body: "token=x&command=%2Fdeploy&text=billing", headers: { "content-type": "application/x-www-form-urlencoded" } });
  await fetch(at.url("ask"), { method: "POST", body: Buffer.from([0, 1, 2, 255, 254, 10, 13]), headers: { "content-type": "application/octet-stream" } });
  await until("dead letters: three failed, one was rejected", async () => (await at.call("GET", "/events?state=dead")).events.length === 4);
  return { relay: at, handler, agent, asks };
}
