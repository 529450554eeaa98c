// What can be done to events. Each takes a list of rows; sheets are loaded when they are first opened.
//
// What reaches others asks once with names and count; a replay to one's own agent does not. Nothing is repeated by itself.

import { about, atAgent, call, has, may, pathOf } from "./api.js";
import { go, route } from "./app.js";
import { attemptOf, opened, whole } from "./event.js";
import { shown } from "./feed.js";
import { confirm, copy, signal, toast } from "./html.js";
import { agents } from "./live.js";
import { format, parse } from "./route.js";
import { dur, line, plural, words } from "./text.js";

const STORED = "relay.to.";
const chosen = signal(0);
/// Where replays of an endpoint go: `{to, name, instance, label}`, or null while nobody has said. What is live goes to one
/// agent alone.
export function target({ endpoint, kind }) {
  chosen.value;
  if (atAgent()) {
    const name = about.value.agent?.name ?? about.value.you?.name;
    if (name) return toAgent({ name });
  }
  const name = localStorage.getItem(STORED + endpoint), agent = serving(endpoint).find((one) => one.name === name);
  return name === "" && kind !== "live" ? everybody(endpoint) : agent ? toAgent(agent) : null;
}

export const toAgent = ({ name, instance }) => ({ to: "agent", name, instance, label: line(name) });
export const everybody = (endpoint) => ({ to: "endpoint", label: `whoever serves ${line(endpoint)}` });

/// An agent by its name; whoever serves the endpoint has none.
export function setTarget(endpoint, { name = "" }) {
  localStorage.setItem(STORED + endpoint, name);
  chosen.value++;
}

/// The agents that serve an endpoint, as far as is known.
export const serving = (endpoint) => (agents.value?.agents ?? []).filter((agent) => agent.endpoints?.some((one) => one.name === endpoint));

/// Replays one event; answers what came of it.
export const send = (id, to, { signature, body } = {}) => call("POST", `${pathOf(id)}/replay`, {
  query: { to: to.to, name: to.name, instance: to.instance, signature: signature === "auto" ? null : signature }, body,
});

/// What came of a replay, in words.
export function outcome(done, to) {
  if (!done.outcome) return `On its way to ${to.label}`;
  const how = done.outcome === "answered" ? done.status : words(done.outcome);
  return `${line(done.agent || to.label)}: ${how} in ${dur(done.duration_us || (done.duration_ms ?? 0) * 1000)}${done.resigned ? ", signed afresh" : ""}`;
}

/// The agents that a replay to whoever serves an endpoint may reach, in words.
export const whoever = (endpoint) => (agents.value ? serving(endpoint).map((agent) => line(agent.name)).join(", ") || "no agent is there, it waits for one" : "whoever is there");

/// Endpoints whose agents were named to whoever replays, who went on.
export const asked = new Set();
/// Whether a replay may go to others: asked once for each endpoint, with the names.
async function agreed(endpoint, to, n) {
  if (to.to !== "endpoint" || (asked.has(endpoint) && n === 1)) return true;
  const yes = await confirm("Replay to whoever serves it", `${plural(n, "event")} of ${line(endpoint)} will go out anew: ${whoever(endpoint)}.`, "Replay");
  if (yes) asked.add(endpoint);
  return yes;
}

/// Whether all of a body is kept, as far as is known: rows do not tell.
export const isWhole = ({ body, size, kind }) => kind !== "live" || !body || body.kept >= size;
export const canReplay = (of) => (of.kind === "event" || (of.kind === "live" && has("replay_live") && isWhole(of))) && may("read", of.endpoint);
const CANNOT = "It cannot be delivered once more";
/// What is known of an event beside its row.
const known = (row) => (opened.value.event?.id === row.id ? opened.value.event : row);

async function replay(all) {
  const rows = all.map(known).filter(canReplay), [first] = rows, to = first && target(first);
  if (!first) return toast(CANNOT);
  const { endpoint } = first;
  if (!to) return (await import("./replay.js")).choose(first, () => replay(rows));
  if (!(await agreed(endpoint, to, rows.length))) return null;
  let done = 0, last = null;
  for (const row of [...rows].sort((a, b) => (a.id < b.id ? -1 : 1))) {
    const place = row.endpoint === endpoint ? to : target(row);
    if (!place) {
      toast(`${line(row.endpoint)}: replay one of its events first, to say where they go`);
      continue;
    }
    try {
      last = await send(row.id, place);
      done++;
      if (rows.length > 1) toast(`Replayed ${done} of ${rows.length}`);
    } catch (problem) {
      return toast(problem.message);
    }
  }
  if (!last) return null;
  toast(rows.length === 1 ? outcome(last, to) : `Replayed ${plural(done, "event")}`);
  // The replay is selected if its original was, once its row is there; one to an agent alone may have none.
  if (rows.length === 1 && last.new_id) select(last.new_id, first.id);
  return null;
}

async function select(id, instead) {
  for (let turn = 0; turn < 4 && route.value.e === instead; turn++) {
    if (shown.rows.has(id)) return go({ e: id, at: "" }, { replace: true });
    await new Promise((resolve) => { setTimeout(resolve, 400); });
  }
  return null;
}

/// Says what came of something, or why nothing did. Resolves to whether it was done.
const saying = (doing, said) => doing.then(() => { if (said) toast(said); return true; }, (problem) => { toast(problem.message); return false; });
const act = (name, { id }, said) => saying(call("POST", `${pathOf(id)}/${name}`), said);

async function each(name, rows) {
  const wanted = rows.filter((row) => row.state === "dead"), what = name === "drop" ? "Drop" : "Revive";
  if (!wanted.length) return toast("None of the marked ones is a dead letter");
  if (!(await confirm(`${what} ${plural(wanted.length, "dead letter")}`, name === "drop" ? "They will not be delivered." : "They wait again, from the schedule’s beginning.", what))) return null;
  for (const [i, row] of wanted.entries()) await act(name, row, `${what}: ${i + 1} of ${wanted.length}`);
  return null;
}

async function explain([row]) {
  if (row.kind !== "refused" && opened.value.event?.kind !== "refused") return toast("Only what was refused is explained");
  const { findings } = await call("GET", `${pathOf(row.id)}/explain`);
  if (!findings?.length) return toast("The explainer found nothing beyond what stands there");
  if (opened.value.id === row.id) opened.value = { ...opened.value, event: { ...opened.value.event, findings } };
  return null;
}

const nameOf = ({ event_type: type, id }) => line(type ?? id);

export const acts = {
  replay,
  each,
  edit: async ([row]) => {
    const event = known(row), of = event === row ? await whole(row.id, row.rev) : event;
    return canReplay(of) ? (await import("./replay.js")).edit(of) : toast(CANNOT);
  },
  compare: async (rows) => (await import("./compare.js")).compare(rows),
  save: async (rows) => (await import("./save.js")).save(rows),
  many: async (query) => (await import("./save.js")).many(query),
  link: ([{ id }]) => copy(new URL(format({ ...parse("/"), e: id }), location.href).href, "The link"),
  curl: ([{ id }]) => saying(import("./save.js").then(async ({ exported }) => copy(await exported(id, "curl"), "The curl command"))),
  explain: (rows) => saying(explain(rows)),
  revive: ([row]) => act("revive", row, "Revived: it waits from the schedule’s beginning"),
  drop: async ([row]) => (await confirm("Drop a dead letter", `${nameOf(row)} will not be delivered.`, "Drop")) && act("drop", row, "Dropped"),
  cancel: async ([row]) => (await confirm("Cancel an event that waits", `${nameOf(row)} will not be tried again.`, "Cancel it")) && act("cancel", row, "Cancelled"),
  attempt: (by) => {
    const { event } = opened.value, now = event && attemptOf(event, route.value.at);
    const next = now && event.attempts[event.attempts.indexOf(now) + by];
    if (!next) return false;
    go({ at: String(next.number), tab: "answer" }, { replace: true });
    return true;
  },
};
