// Calls to the relay: keys, errors, and what the one who asks may do.
//
// The key stands in this browser's storage and goes along as a header; there is no cookie on loopback. A call that fails
// throws a `Problem` and is never repeated by itself. Only addresses under `BASE` are called.

import { signal } from "./html.js";
import { login } from "./route.js";
import { VERSION } from "./version.js";

export const BASE = "/api/v1";
const STORED = "relay.key";

/// `starting`, `in`, or `out` with why: then the page asks for a key.
export const session = signal({ state: "starting" });
/// What the relay said of itself, once it did.
export const about = signal(null);

let key = null;
const given = login(location.hash);
/// Whether there is a key that was used before, and none that is given just now.
export const isKnown = () => Boolean(key) && !given;

/// An error of the API, or of the way there (`status` 0).
export class Problem extends Error {
  constructor({ status = 0, code = "", message = "", at = null, inForce, retry_after_s = null }) {
    super(message);
    Object.assign(this, { status, code, at, inForce, retryAfter: retry_after_s });
  }
}

export const isAbort = (error) => error?.name === "AbortError";

/// The address of a path of the API with its query; `null` is left out.
export function address(path, query = {}) {
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== null && value !== undefined) asked.set(name, value);
  return BASE + path + (asked.size ? `?${asked}` : "");
}

/// The path of an event.
export const pathOf = (id) => `/events/${encodeURIComponent(id)}`;

/// The answer itself, for bodies and streams.
export async function ask(method, path, { query, body, headers = {}, signal: until } = {}) {
  const sent = { Accept: "application/json", "Relay-Page": VERSION, ...headers };
  if (key) sent.Authorization = `Bearer ${key}`;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(address(path, query), {
      method, headers: sent, body: body === undefined ? undefined : JSON.stringify(body), signal: until,
      cache: "no-store", redirect: "error", referrerPolicy: "no-referrer",
    });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new Problem({ code: "unreachable", message: "the relay cannot be reached from this page" });
  }
  if (answer.ok) return answer;
  const problem = await problemOf(answer);
  if (answer.status === 401 && path !== "/sessions") session.value = { state: "out", why: problem.message };
  throw problem;
}

/// What a call answers, as a value.
export async function call(method, path, options) {
  const answer = await ask(method, path, options);
  if (answer.status === 204) return null;
  return value(answer);
}

const isJson = (answer) => /^application\/([\w.-]+\+)?json\b/.test(answer.headers.get("content-type") ?? "");

async function value(answer) {
  if (!isJson(answer)) throw new Problem({ status: answer.status, code: "not_the_api", message: "something that is not the relay's API answered" });
  return answer.json();
}

async function problemOf(answer) {
  const { status } = answer;
  let said = null;
  if (isJson(answer)) said = await answer.json().catch(() => null);
  return new Problem({ code: `http_${status}`, message: `the relay answered ${status}`, ...pick(said), status });
}

function pick(said) {
  if (!said || typeof said !== "object") return {};
  const code = said.code ?? said.error, message = said.detail ?? said.message;
  const out = { at: said.at ?? null, retry_after_s: said.retry_after_s ?? null };
  if (typeof said.in_force === "string") out.inForce = said.in_force;
  if (typeof code === "string") out.code = code;
  if (typeof message === "string" && message) out.message = message;
  return out;
}

/// Whether the one who asks has a right at an endpoint; at any, where none is named.
export function may(right, endpoint) {
  const rights = about.value?.you?.rights ?? {};
  return Object.entries(rights).some(([name, list]) => list.includes(right) && (endpoint === undefined || fits(name, endpoint)));
}

const fits = (pattern, name) => pattern === "*" || pattern === name || (pattern.endsWith("*") && name.startsWith(pattern.slice(0, -1)));

export const has = (feature) => about.value?.api?.features?.includes(feature) ?? false;
/// Whether this page is the agent's own, on the developer's machine.
export const atAgent = () => has("agent");
/// Whose files this page is made of, and its version where that is another than the page's.
export const newer = () => {
  const [whose, version] = atAgent() ? ["agent", about.value.agent?.version] : ["relay", about.value?.relay?.version];
  return version && version !== VERSION ? `The ${whose} is ${version} now` : "";
};

/// Uses a key from now on, in every tab of this browser.
function keep(next) {
  key = next;
  if (next) localStorage.setItem(STORED, next);
  else localStorage.removeItem(STORED);
}

/// Opens a session from what a person pasted: an address that logs in, a code, a key or a token.
export async function enter(text) {
  const [kind, secret] = login(text.slice(Math.max(0, text.indexOf("#"))).trim()) ?? ["token", text.trim()];
  if (kind === "key") keep(secret);
  else await open({ [kind]: secret });
  await whoAmI();
}

async function open(body) {
  try {
    const made = await call("POST", "/sessions", { body });
    // Where there is TLS the session is a cookie that no script can read.
    keep(location.protocol === "https:" ? null : made.key);
  } catch (problem) {
    // The agent's page opens no sessions; its key is what was given.
    if (problem.status !== 404 || !body.token) throw problem;
    keep(body.token);
  }
}

export async function leave() {
  await call("DELETE", "/sessions/current").catch(() => null);
  keep(null);
  session.value = { state: "out", why: "" };
}

/// Asks the relay who is asking. Sets `about` and `session`.
export async function whoAmI() {
  const told = await call("GET", "/");
  about.value = told;
  session.value = { state: "in" };
  return told;
}

/// Takes a key out of the address, wipes it from there, and begins. Throws nothing.
export async function begin() {
  key = localStorage.getItem(STORED);
  addEventListener("storage", (event) => {
    if (event.key !== STORED) return;
    key = event.newValue;
    if (key && session.value.state === "out") whoAmI().catch(() => null);
  });
  if (given) history.replaceState(history.state, "", location.pathname + location.search);
  try {
    if (given?.[0] === "key") keep(given[1]);
    if (given?.[0] === "code") await open({ code: given[1] });
    await whoAmI();
  } catch (problem) {
    if (given?.[0] === "code" && problem.status !== 0) {
      // A code is good once; a session of before may still be.
      if (await whoAmI().catch(() => null)) return;
      session.value = { state: "out", why: problem.message };
    } else if (session.value.state !== "out") session.value = { state: "unreachable", why: problem.message };
  }
}
