// The rows behind the list: pages of the relay, and what the stream tells of them since.
//
// There are two sets: all events, and those that the query finds. The relay alone decides what a query finds; rows at hand
// that seem to fit are shown at once and go again if the relay did not name them. Where no more rows can be held, those
// that somebody looks at stay: the list then stands apart from the newest.

import { Problem, about, call, isAbort } from "./api.js";
import { batch, computed, signal } from "./html.js";
import { follow, hear, news, position } from "./live.js";
import { Rows } from "./rows.js";
import { judge } from "./judge.js";

const PAGE = 200, TINT_MS = 1600, MAX_TINTED = 20;
export const VIEWS = { all: "", failing: "is:dead,failed,rejected", waiting: "is:waiting,running", refused: "is:refused", replays: "is:replay" };

/// All events, and what is known of how they go on, while nobody looks at a query.
let all = new Rows(), known = null;
/// What is shown; `version` rises with each change of it.
export const shown = { rows: all, query: "" };
export const version = signal(0);
/// The state that the row of an id is in, as a number: unlike `version` it changes with that row alone.
export const stateOf = (id) => computed(() => (version.value, shown.rows.row(id())?.v ?? -1));
/// The rows at hand, whatever is looked for.
export const atHand = () => (all.length ? all : shown.rows);
/// Who looks: whether that is below the top of the list.
export const eye = { isBelow: () => false };
/// How many rows came on top meanwhile, for the pill.
export const arrivals = signal(0);
const blank = { busy: true, problem: null, next: null, looked: 0, backTo: null, begun: false };
export const state = signal(blank);
export const live = signal(true);
/// What is newer than the list's rows is not shown: it stands around an old event, or has come too far down.
export const apart = signal(false);
export const leftOut = signal(0);
/// Where the list goes on: behind its oldest row, if older ones had to go.
export const next = () => (shown.rows.cut ? shown.rows.at(shown.rows.length - 1).id : state.value.next);

const changed = () => { version.value++; };
const set = (change) => { state.value = { ...state.value, ...change }; };

let asking = new AbortController(), stopStream = null, askedAt = "";

/// Shows what a query finds.
export function find(query) {
  const { begun, problem } = state.peek();
  if (query === shown.query && begun && problem?.status !== 401) return;
  asking.abort();
  const one = asking = new AbortController(), before = shown.rows;
  stopStream = stopStream?.();
  shown.query = query;
  batch(() => {
    apart.value = false;
    arrivals.value = leftOut.value = 0;
    shown.rows = query ? new Rows() : all;
    if (query) shown.rows.put(before.list.filter((row) => judge(query, row) === true).slice(-2000));
    state.value = query || !known ? { ...blank, begun: true } : known;
    changed();
  });
  if (!state.peek().busy) reload();
  // Whoever types goes on; the relay is asked once they pause.
  else setTimeout(() => { if (!one.signal.aborted) first(one); }, query ? 120 : 0);
}

async function first(one) {
  const { query, rows } = shown, page = await ask({ q: query }, one);
  if (!page) return;
  const last = page.next ?? "", named = new Set(page.events.map((row) => row.id));
  // The relay looked at all rows down to `last`: what it did not name does not fit.
  if (query) rows.retain((row) => named.has(row.id) || row.id < last || row.born > one.at);
  rows.put(page.events);
  took(page);
  watch();
}

function took({ problem = null, next, events, looked }) {
  set({ busy: false, begun: true, problem, next, productive: events.length > 20, looked: state.value.looked + (looked?.rows ?? events.length), backTo: looked?.back_to ?? events.at(-1)?.received_at ?? null });
  if (shown.rows === all) known = state.value;
  changed();
}

/// What was read has the number that was the next: a row of the stream with that number is newer.
export const asRead = (row) => Object.assign(row, { rev: (row.rev ?? 0) - 0.5 });

/// A page of the list, or null where it is not wanted any more or did not come.
async function ask(query, one) {
  try {
    one.at = performance.now();
    if (!query.after) askedAt = position();
    const page = await call("GET", "/events", { query: { limit: PAGE, ...query }, signal: one.signal });
    page.events.forEach(asRead);
    return one.signal.aborted ? null : page;
  } catch (problem) {
    if (isAbort(problem)) return null;
    if (problem.inForce !== undefined && problem.inForce !== query.q) {
      const page = await ask({ ...query, q: problem.inForce }, one);
      return page && { ...page, problem };
    }
    set({ busy: false, begun: true, problem });
    changed();
    return null;
  }
}

/// Older ones.
export async function more() {
  const { rows, query } = shown, after = next();
  if (!after || state.value.busy) return;
  set({ busy: true });
  const page = await ask({ q: query, after }, asking);
  if (!page) return;
  rows.cut = false;
  if (rows.length + page.events.length > rows.max) {
    stay();
    rows.keepOldest(rows.max / 2);
  }
  rows.put(page.events);
  took(page);
}

/// Keeps what is shown as it is: what is newer comes once somebody goes to the top.
function stay() {
  apart.value = true;
  if (shown.rows === all) [all, known] = [new Rows(), null];
  watch();
}

/// Takes rows of the stream into what is shown. Rows that somebody looks at do not go for them.
function come(rows) {
  const to = shown.rows;
  if (eye.isBelow() && to.length + rows.length > to.max) stay();
  if (apart.value) to.update(rows);
  else arrive(to.put(rows));
}

/// The first pages once more, until they meet what is held, or `deep`er.
export async function reload({ force = false, deep = false, most = 5, limit = PAGE } = {}) {
  if (apart.value) return;
  const one = asking, { query, rows } = shown, got = [];
  let after = null, page = null, met = rows.length === 0;
  for (let turn = 0; turn < most; turn++) {
    page = await ask({ q: query, limit, after }, one);
    if (!page) return;
    got.push(...page.events);
    met ||= page.events.some((row) => rows.has(row.id));
    after = page.next;
    if ((met && !deep) || !after) break;
  }
  if (!met && after) {
    // Too much came in between: what is older is loaded again when somebody scrolls there.
    rows.retain((row) => row.id >= after);
    rows.put(got, force);
    rows.cut = false;
    set({ looked: 0 });
    took(page);
  } else arrive(rows.put(got, force));
  leftOut.value = 0;
  set({ busy: false, begun: true });
  changed();
  watch();
}

/// The list around an event that stands further back than what is held.
export async function around(id) {
  const one = asking, page = await call("GET", "/events", { query: { around: id, limit: PAGE }, signal: one.signal }).catch(() => null);
  page?.events.forEach(asRead);
  if (!page?.events.some((row) => row.id === id) || one.signal.aborted || shown.query) return;
  // Rows that join on to those that are held, such as one that came a moment ago, are simply among them.
  if (!apart.value && (!all.length || page.events[0].id > all.at(0).id || page.events.some((row) => all.has(row.id)))) {
    arrive(all.put(page.events));
    return changed();
  }
  batch(() => {
    shown.rows = new Rows();
    shown.rows.put(page.events);
    apart.value = true;
    set({ next: page.next });
    changed();
  });
}

/// Back to the newest.
export function newest() {
  if (!apart.value) return;
  const { query } = shown;
  Object.assign(shown, { query: null, rows: new Rows() });
  find(query);
}

let tinted = 0, tintedSince = 0;
function arrive(fresh) {
  const now = performance.now();
  // What comes faster than one can look is not tinted: where all is new, a tint points at nothing.
  if (now - tintedSince > TINT_MS) [tinted, tintedSince] = [0, now];
  tinted += fresh.length;
  for (const row of fresh) {
    row.born = now;
    if (tinted <= MAX_TINTED) row.tint = now + TINT_MS;
  }
  if (eye.isBelow()) arrivals.value += fresh.length;
}

const again = (data) => reload({ force: data?.why === "restarted", deep: data?.why === "many_changed" });

/// A query that finds some has a stream of its own, as long as somebody looks at this tab. It begins with what came
/// since the first page was asked for; where that is not known, the page is asked for once more.
function watch() {
  const { query } = shown, from = askedAt;
  let isWhole = from !== "";
  if (!query || !live.value || apart.value || document.hidden || state.value.problem) stopStream = stopStream?.();
  else stopStream ??= follow({
    query: { q: query, types: "rows" },
    from,
    onState: () => null,
    onEvent: (id, event, data) => {
      if (shown.query !== query) return;
      if (event === "rows") {
        come(data.rows ?? []);
        changed();
      } else if (event === "hello" && !isWhole) {
        isWhole = true;
        reload();
      } else if (event === "resync") again(data);
    },
  });
}

hear((event, data) => {
  if (!live.value) return;
  if (event === "rows") {
    const rows = data.rows ?? [];
    if (shown.rows === all) come(rows);
    else {
      if (known) all.put(rows);
      shown.rows.update(rows);
    }
    if (data.left_out && !shown.query) leftOut.value += data.left_out;
    changed();
  } else if (event === "resync") again(data);
});

let wasLost = false;
news.subscribe(({ state: now }) => {
  if (now === "live" && wasLost && state.peek().problem) queueMicrotask(() => reload());
  wasLost = now === "lost" || now === "none";
});

export function setLive(on) {
  live.value = on;
  if (on) reload();
  watch();
}

/// Loads what the stream left out.
export const loadLeftOut = () => reload({ most: 25, limit: Math.min(1000, about.value?.limits?.page || 1000) });

document.addEventListener("visibilitychange", () => { if (!document.hidden && shown.query) reload(); else watch(); });

/// Whether an error of the list means that the query could not be read.
export const isQueryMistake = (problem) => problem instanceof Problem && problem.status === 400;
