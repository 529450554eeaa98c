// News from the relay: one stream for all tabs of a browser.
//
// The first tab takes a lock, reads the stream and tells the others over a channel; the lock's heir goes on from the
// last id. What comes is handed on as it is; nothing is kept here but the newest whole states. A stream is silent for ten
// seconds at most, so silence beyond that is told, and after some more the stream is opened anew.

import { about, ask, call, isAbort, session, whoAmI } from "./api.js";
import { effect, signal, untracked } from "./html.js";

const QUIET_MS = 12_000, GONE_MS = 25_000, MAX_MESSAGE = 8_000_000;

/// `starting`, `live`, `quiet`, `lost` (tried again at `again`), or `none` where the relay has no stream.
export const news = signal({ state: "starting" });
/// The agents as the API shows them, or null; and how many dead letters there are.
export const agents = signal(null), dead = signal(0);

const hearers = new Set();
/// Calls `hear(event, data)` for whatever comes; returns what ends it.
export function hear(hearer) {
  hearers.add(hearer);
  return () => hearers.delete(hearer);
}

let lastId = "";
/// What the news have come to; a stream that goes on from there misses nothing that came since.
export const position = () => lastId;

async function loadAgents() {
  const told = await call("GET", "/agents").catch(() => null);
  if (told?.agents) agents.value = told;
}

let counts = null;
/// Counts dead letters, at most every three seconds.
function countDead(after = 3000) {
  counts ??= setTimeout(async () => {
    counts = null;
    const told = await call("GET", "/events/count", { query: { q: "is:dead" } }).catch(() => null);
    if (told) dead.value = told.at_least;
  }, after);
}

/// Begins, once the page is let in.
export function begin() {
  effect(() => {
    if (session.value.state !== "in") return;
    queueMicrotask(loadAgents);
    countDead(0);
  });
  setInterval(() => { if (!document.hidden && session.peek().state === "in") loadAgents(); }, 15_000);
  if (!navigator.locks || !globalThis.BroadcastChannel) return lead(() => null);
  const channel = new BroadcastChannel("relay-news");
  // A tab that is alone tells nobody: each message would be copied for it.
  let leads = false, isAlone = true;
  channel.onmessage = ({ data }) => {
    isAlone = false;
    if (data.ask && leads) channel.postMessage({ state: news.value });
    else if (!data.ask && !leads) take(data);
  };
  channel.postMessage({ ask: true });
  navigator.locks.request("relay-news", () => new Promise(() => {
    leads = true;
    lead((message) => { if (!isAlone) channel.postMessage(message); });
  }));
  return null;
}

function lead(tell) {
  const both = (message) => {
    take(message);
    tell(message);
  };
  follow({
    query: { types: "rows,agents,endpoints,figures" },
    from: lastId,
    onEvent: (id, event, data) => both({ id, event, data }),
    onState: (state) => both({ state }),
  });
}

function take({ state, id, event, data }) {
  if (state) news.value = state;
  if (id) lastId = id;
  if (!event) return;
  if (event === "agents") agents.value = data?.agents ? data : (loadAgents(), agents.value);
  if (event === "resync") {
    loadAgents();
    countDead();
  }
  if (event === "rows" && (dead.value || data?.rows?.some((row) => row.state === "dead"))) countDead();
  if (event === "hello" && data?.version && data.version !== about.value?.relay?.version) whoAmI().catch(() => null);
  for (const hearer of hearers) hearer(event, data);
}

/// Reads a stream until `stop()`, which it returns; opens it again when it ends.
export function follow({ query, from = "", onEvent, onState }) {
  const ends = new AbortController();
  let last = from;
  const run = async () => {
    let failures = 0, heard = Date.now();
    while (!ends.signal.aborted) {
      await letIn(ends.signal);
      const one = new AbortController(), both = AbortSignal.any([one.signal, ends.signal]);
      let watch, again = Math.min(15_000, 1000 * 2 ** Math.min(failures, 4)), why = "", none = false;
      const alive = () => {
        heard = Date.now();
        failures = 0;
        clearTimeout(watch);
        watch = setTimeout(() => {
          onState({ state: "quiet", since: heard });
          watch = setTimeout(() => one.abort(), GONE_MS - QUIET_MS);
        }, QUIET_MS);
      };
      const opening = setTimeout(() => one.abort(), GONE_MS);
      try {
        const headers = { Accept: "text/event-stream", ...(last ? { "Last-Event-ID": last } : {}) };
        const answer = await ask("GET", "/stream", { query, headers, signal: both });
        clearTimeout(opening);
        let told = "";
        const say = () => {
          alive();
          if (told !== "live") onState({ state: told = "live" });
        };
        say();
        await messages(answer.body, () => { if (news.peek().state !== "live") told = ""; say(); }, (id, event, data) => {
          if (id) last = id;
          if (event === "bye") again = Number(data?.again_ms) || 1000;
          onEvent(id, event, data);
        });
      } catch (error) {
        if (ends.signal.aborted) break;
        failures++;
        if (!isAbort(error)) why = error.message;
        if (error.status === 404 || error.status === 403) none = true;
        if (error.retryAfter) again = error.retryAfter * 1000;
      } finally {
        clearTimeout(watch);
        clearTimeout(opening);
      }
      if (ends.signal.aborted) break;
      if (none) again = 60_000;
      onState({ state: none ? "none" : "lost", since: heard, again: Date.now() + again, why });
      await pause(again * (0.9 + Math.random() / 5), ends.signal);
    }
  };
  run();
  return () => ends.abort();
}

/// Reads server-sent events. `alive()` is called for each piece, comments included.
async function messages(body, alive, message) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", id = "", event = "", data = [];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    alive();
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    if (rest.length > MAX_MESSAGE) throw new Error("a message of the stream is too long");
    for (const raw of lines) {
      const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
      if (line === "") {
        if (data.length) {
          let told = null;
          try {
            told = JSON.parse(data.join("\n"));
          } catch { /* what is not JSON is not ours */ }
          message(id, event || "message", told);
        }
        [id, event, data] = ["", "", []];
      } else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
      else if (line.startsWith("event:")) event = line.slice(6).trim();
      else if (line.startsWith("id:")) id = line.slice(3).trim();
    }
  }
}

const pause = (ms, until) => new Promise((resolve) => {
  const timer = setTimeout(resolve, ms);
  until.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
});

/// Waits until the page is let in.
function letIn(until) {
  if (untracked(() => session.value.state) === "in") return null;
  return new Promise((resolve) => {
    let stop = null, over = false;
    const end = () => { over = true; stop?.(); resolve(); };
    stop = effect(() => { if (session.value.state === "in") queueMicrotask(end); });
    if (over) stop();
    until.addEventListener("abort", end, { once: true });
  });
}
