// Two events, two attempts, or an original and its replay, side by side.
//
// JSON is compared by value, text by line, other bytes by offset. How much differs stands before what differs.

import { pathOf } from "./api.js";
import { bytesOf } from "./body.js";
import { attemptOf, opened, whole } from "./event.js";
import { diffBytes, diffHeaders, diffJson, diffText } from "./diff.js";
import { hexLine, textOf } from "./hex.js";
import { Seg, Sheet, html, live, openSheet, signal, toast } from "./html.js";
import { shown } from "./feed.js";
import { clock, dur, plural, seen, size, title } from "./text.js";
import { stepsOf } from "./way.js";

const MOST = 1_048_576, MAX_ROWS = 10_000;
const PARTS = [["body", "Request body"], ["headers", "Headers"], ["answer", "Answer"], ["timing", "Timing"]];

/// What two are compared: the marked ones, original and replay, two attempts, else the event before of the same type.
async function pair(rows) {
  if (rows.length >= 2) return Promise.all([...rows].slice(0, 2).sort((a, b) => (a.id < b.id ? -1 : 1)).map((row) => side(row.id)));
  const event = await whole(rows[0].id, rows[0].rev);
  if (event.replay_of) {
    const first = await side(event.replay_of).catch(() => null);
    if (first) return [first, { event, attempt: attemptOf(event, "") }];
  }
  if (event.attempts?.length > 1) return event.attempts.slice(-2).map((attempt) => ({ event, attempt }));
  const list = shown.rows, at = list.indexOf(event.id);
  for (let i = at + 1; i < list.length; i++) {
    const other = list.at(i);
    if (other.endpoint === event.endpoint && other.event_type === event.event_type) return [await side(other.id), { event, attempt: attemptOf(event, "") }];
  }
  return null;
}

async function side(id) {
  const event = opened.value.event?.id === id ? opened.value.event : await whole(id);
  return { event, attempt: attemptOf(event, "") };
}

async function bytes(one, part) {
  const { event, attempt } = one;
  if (part === "body") return bytesOf(`${pathOf(event.id)}/body`, 0, MOST, event.body?.kept ?? event.size);
  return attempt?.answer ? bytesOf(`${pathOf(event.id)}/attempts/${attempt.number}/body`, 0, MOST, attempt.answer.size) : new Uint8Array(0);
}

/// `{said, rows, hex}` of two byte strings.
function diffOf(left, right) {
  const [a, b] = [textOf(left), textOf(right)], bytesSame = diffBytes(left, right);
  if (bytesSame.same) return { said: "the same bytes", ...limited(a === null ? { rows: [] } : diffText(a, a)) };
  if (a !== null && b !== null) {
    try {
      const found = diffJson(a, b);
      return { said: found.count ? `${plural(found.count, "value")} ${found.count === 1 ? "differs" : "differ"}; key order does not count` : "the same values, written differently", ...limited(found) };
    } catch {
      const found = diffText(a, b);
      return { said: `${plural(found.count, "line")} ${found.count === 1 ? "differs" : "differ"}`, ...limited(found) };
    }
  }
  const from = Math.max(0, (bytesSame.first & ~15) - 64), rows = [];
  for (let at = from; at < from + 512 && at < Math.max(left.length, right.length); at += 16) {
    const [l, r] = [left, right].map((one) => (at < one.length ? hexLine(one, at).join("  ") : null));
    rows.push({ left: l, right: r, differs: l !== r });
  }
  return { said: `${plural(bytesSame.differing, "byte")} ${bytesSame.differing === 1 ? "differs" : "differ"}, the first at offset ${bytesSame.first}; ${size(left.length)} and ${size(right.length)}`, rows };
}

const limited = ({ rows }) => ({ rows: rows.slice(0, MAX_ROWS), more: Math.max(0, rows.length - MAX_ROWS) });

async function found(part, [a, b]) {
  if (part === "headers") {
    const { count, rows } = diffHeaders(a.event.headers ?? [], b.event.headers ?? []);
    return { said: count ? `${plural(count, "header")} ${count === 1 ? "differs" : "differ"}` : "the same headers", rows };
  }
  if (part === "timing") {
    const [left, right] = [a, b].map(({ event }) => stepsOf(event).map((step) => `${step.what}: ${step.to > step.from ? dur(step.to - step.from) : `+${dur(step.from)}`}`));
    const rows = Array.from({ length: Math.max(left.length, right.length) }, (_, i) => ({ left: left[i] ?? null, right: right[i] ?? null, differs: false }));
    return { said: `took ${[a, b].map(({ event, attempt }) => dur(attempt?.duration_us ?? event.took_us) || "–").join(" and ")}`, rows };
  }
  const [left, right] = await Promise.all([bytes(a, part), bytes(b, part)]);
  const out = diffOf(left, right);
  if (part === "answer") out.said = `${[a, b].map((one) => one.attempt?.status ?? "none").join(" and ")}; ${out.said}`;
  return out;
}

const Lines = ({ rows }) => rows.map(({ left, right, differs }, i) => html`<span key=${`l${i}`} class=${differs && left !== null ? "line del" : "line"}>${seen(left ?? "")}</span><span key=${`r${i}`} class=${differs && right !== null ? "line add" : "line"}>${seen(right ?? "")}</span>`);

const nameOf = ({ event, attempt }, both) => `${clock(event.received_at)}  ${title(event)}${both[0].event === both[1].event && attempt ? `, attempt ${attempt.number}` : ""}  ${attempt?.status ?? event.status ?? ""}${attempt ? ` in ${dur(attempt.duration_us)}` : ""}`;

const Compare = live(({ both, onClose }, own) => {
  const { said = "", rows = [], more = 0 } = own.found.value ?? {};
  return html`<${Sheet} title="Compare" kind="big" onClose=${onClose}>
    <div class="tools"><${Seg} label="What is compared" value=${own.part.value} options=${PARTS} onPick=${own.show} /><span role="status">${own.problem.value || said || "Comparing…"}</span></div>
    <div class="cmp" role="group" aria-label="Both sides" tabindex="0"><h2>${nameOf(both[0], both)}</h2><h2>${nameOf(both[1], both)}</h2>
      <${Lines} rows=${rows} /></div>
    ${more ? html`<p class="dim">${plural(more, "more line")} not shown</p>` : null}<//>`;
}, ({ both }, self) => {
  const own = { part: signal("body"), found: signal(null), problem: signal("") };
  own.show = async (part) => {
    own.part.value = part;
    own.problem.value = "";
    own.found.value = null;
    try {
      const told = await found(part, both);
      if (own.part.value === part) own.found.value = told;
    } catch (problem) {
      own.problem.value = problem.message;
    }
  };
  self.mounted = () => { own.show(both[0].event === both[1].event ? "answer" : "body"); };
  return own;
});

export async function compare(rows) {
  try {
    const both = await pair(rows);
    return both ? openSheet(Compare, { both }) : toast("There is nothing to compare it with: mark two events, then press =");
  } catch (problem) {
    return toast(problem.message);
  }
}
