// What the tests of the page are made of: a real relay, real agents, a handler, and bounded waits for a state.
//
// `RELAY_PROGRAM` names a program that is the relay (`server`) and the agent (`client`) by its first word. Everything
// that is started ends with `end()`. Nothing waits for a time to pass; waits poll a state and have a bound.

import { spawn } from "node:child_process";
import { createHash, createHmac, randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const PROGRAM = process.env.RELAY_PROGRAM ?? "";
const PATIENCE_MS = 30_000;
const started = [];

/// Has something ended with all that was started.
export const ends = (stop) => { started.push({ stop }); };

/// Ends everything that was started, the newest first.
export async function end() {
  for (const one of started.splice(0).reverse()) await one.stop().catch((error) => console.error(`could not be stopped: ${error.message}`));
}

/// Polls until `state()` is truthy, and returns that.
export async function until(what, state, patience_ms = PATIENCE_MS) {
  const last = Date.now() + patience_ms;
  for (;;) {
    const found = await state();
    if (found) return found;
    if (Date.now() > last) throw new Error(`it did not come within ${patience_ms / 1000} s: ${what}`);
    await new Promise((next) => setTimeout(next, 20));
  }
}

export function equal(found, expected, what) {
  const [one, other] = [found, expected].map((value) => JSON.stringify(value));
  if (one !== other) throw new Error(`${what}: ${one} is not ${other}`);
}

export function ok(found, what) {
  if (!found) throw new Error(what);
  return found;
}

export const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

/// A process whose lines are kept and can be waited for.
class Process {
  constructor(args, env) {
    this.lines = [];
    this.child = spawn(PROGRAM, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
    for (const pipe of [this.child.stdout, this.child.stderr]) createInterface(pipe).on("line", (line) => this.lines.push(line));
    this.ended = new Promise((done) => this.child.on("exit", (code, signal) => done(code ?? signal)));
    this.child.on("exit", () => { this.gone = true; });
  }
  async line(pattern, from = 0) {
    try {
      return await until(`a line ${pattern}`, () => {
        const found = this.lines.slice(from).map((line) => pattern.exec(line)).find(Boolean);
        if (!found && this.gone) throw new Error("it ended");
        return found;
      });
    } catch (error) {
      throw new Error(`${error.message}; it said:\n${this.lines.join("\n")}`);
    }
  }
  signal(name) {
    this.child.kill(name);
  }
  async stop() {
    if (this.gone) return;
    this.signal("SIGCONT");
    this.signal("SIGTERM");
    const killed = setTimeout(() => this.signal("SIGKILL"), 5000);
    await this.ended;
    clearTimeout(killed);
  }
}

/// Runs a command of the relay or the agent to its end: what it printed, and its code.
export async function run(role, args, { env = {}, input } = {}) {
  const child = spawn(PROGRAM, [role, ...args], { env: { ...process.env, ...env }, stdio: ["pipe", "pipe", "pipe"] });
  let out = "", err = "";
  child.stdout.on("data", (data) => { out += data; });
  child.stderr.on("data", (data) => { err += data; });
  child.stdin.on("error", () => null).end(input ?? "");
  const code = await new Promise((done) => child.on("exit", (code, signal) => done(code ?? signal)));
  return { code, out, err };
}

/// A relay: with a config of these tables, or, without any, `serve --dev`.
export class Relay {
  static async start(tables = "", { env = {}, args = [] } = {}) {
    const relay = new Relay();
    Object.assign(relay, { tables, env, args, directory: await mkdtemp(join(tmpdir(), "relay-page-")), token: `rt_${randomBytes(32).toString("base64url")}` });
    started.push(relay);
    if (tables) await relay.configure(tables);
    await relay.launch("127.0.0.1:0", "127.0.0.1:0");
    return relay;
  }
  async configure(tables) {
    const config = `version = 1\n[server]\nlisten = "${this.public ?? "127.0.0.1:0"}"\nadmin = "${this.admin ?? "127.0.0.1:0"}"\n${tables}\n[[token]]\nname = "test"\nsha256 = ["${sha256(this.token)}"]\nendpoints = ["*"]\nrights = ["attach", "read", "replay", "skip"]\n`;
    await writeFile(join(this.directory, "relay.toml"), config);
  }
  async launch(listen, admin) {
    const how = this.tables ? ["--config", join(this.directory, "relay.toml")] : ["--dev"];
    this.process = new Process(["server", "serve", ...how, "--listen", listen, "--admin", admin, ...this.args], { NO_COLOR: "1", ...this.env });
    const [, at, of] = await this.process.line(/listening.*public=(\S+).*admin=(\S+)/);
    Object.assign(this, { public: at, admin: of });
    if (this.tables) this.admin_token = (await readFile(join(this.directory, "relay-state", "admin.token"), "utf8")).trim();
  }
  /// Starts it again at the same addresses, after `process.stop()`.
  restart() {
    return this.launch(this.public, this.admin);
  }
  get origin() {
    return `http://${this.admin}`;
  }
  url(endpoint) {
    return `http://${this.public}/${endpoint}`;
  }
  /// An address that logs a browser in once.
  async page() {
    if (!this.tables) return (await this.process.line(/(http:\/\/\S+#(?:code|key)=\S+)/))[1];
    const { out, err } = await run("server", ["inspect", "--config", join(this.directory, "relay.toml"), "--admin-url", this.origin]);
    return ok(/http:\/\/\S+#(?:code|key)=\S+/.exec(out), `inspect printed no address: ${out}${err}`)[0];
  }
  async call(method, path, body, token = this.admin_token) {
    const headers = { authorization: `Bearer ${token}`, ...(body === undefined ? {} : { "content-type": "application/json" }) };
    const answer = await fetch(`${this.origin}/api/v1${path}`, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return text ? JSON.parse(text) : null;
  }
  async stop() {
    await this.process?.stop();
    await rm(this.directory, { recursive: true, force: true });
  }
}

/// An agent that listens for one endpoint.
export class Agent {
  static async start(relay, endpoint, target, { name = "laptop-mara", args = [], token = relay.token } = {}) {
    const agent = new Agent();
    started.push(agent);
    agent.process = new Process(["client", "listen", String(target), endpoint, "--relay", `ws://${relay.public}`, "--name", name, "--output", "json", ...args], { RELAY_TOKEN: token, XDG_CONFIG_HOME: relay.directory });
    await agent.process.line(/attached|ready/);
    return agent;
  }
  /// The address of its own page, with its key, where it was started with `--inspect-addr`. The key stands in a file of
  /// the user's alone, since these lines go into logs.
  async page() {
    const { address, key_file: file } = JSON.parse((await this.process.line(/^.*"key_file".*$/))[0]);
    return `${address}#key=${(await readFile(file, "utf8")).trim()}`;
  }
  stop() {
    return this.process.stop();
  }
}

/// A handler. `answer(request)` gives `{status, headers, body}`; what came stands in `requests`.
export class Handler {
  constructor(answer = () => ({})) {
    Object.assign(this, { answer, requests: [], port: 0, delay: null });
    started.push(this);
  }
  async start() {
    this.server = createServer(async (request, response) => {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      const came = { method: request.method, url: request.url, headers: request.headers, body: Buffer.concat(chunks), at: Date.now() };
      this.requests.push(came);
      const { status = 200, headers = {}, body = "ok" } = await this.answer(came);
      response.writeHead(status, headers).end(body);
    });
    await new Promise((done) => this.server.listen(this.port, "127.0.0.1", done));
    this.port = this.server.address().port;
    return this;
  }
  async stop() {
    if (!this.server?.listening) return;
    const closed = new Promise((done) => this.server.close(done));
    this.server.closeAllConnections();
    await closed;
  }
}

/// A webhook as GitHub signs it.
export async function github(relay, endpoint, secret, body, { type = "push", id = crypto.randomUUID(), path = "", headers = {}, signature } = {}) {
  const bytes = Buffer.from(body);
  const sign = signature ?? `sha256=${createHmac("sha256", secret).update(bytes).digest("hex")}`;
  const answer = await fetch(relay.url(endpoint) + path, {
    method: "POST", body: bytes,
    headers: { "content-type": "application/json", "x-github-event": type, "x-github-delivery": id, "x-hub-signature-256": sign, ...headers },
  });
  return { status: answer.status, id: answer.headers.get("relay-event-id"), text: await answer.text() };
}

/// Runs lists of steps, the lists side by side and the steps of each in order; one that fails does not stop those behind
/// it. Ends the process.
export async function steps(...lists) {
  const only = process.env.ONLY?.split(",");
  let failed = 0;
  await Promise.all(lists.map(async (list) => {
    for (const [name, step] of list) {
      if (only && !only.some((one) => name.startsWith(one))) continue;
      const from = Date.now();
      try {
        const note = await step();
        console.log(`ok      ${name}${note ? `: ${note}` : ""} (${Date.now() - from} ms)`);
      } catch (error) {
        failed += 1;
        console.log(`FAILED  ${name}: ${error.stack ?? error} (${Date.now() - from} ms)`);
      }
    }
  }));
  await end();
  console.log(failed ? `${failed} failed` : "all passed");
  process.exit(failed ? 1 : 0);
}
