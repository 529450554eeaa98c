// The event that is open: what it is, whether it worked and why, where the time went, and what was in it.
//
// Sentences and advice are the relay's. What a row already tells is shown at once; the rest follows. Actions whose right
// or feature is missing are not there.

import { acts, canReplay, isWhole, target } from "./acts.js";
import { atAgent, call, has, isAbort, may, pathOf } from "./api.js";
import { Link, go, route as address } from "./app.js";
import { Body } from "./body.js";
import { Place } from "./events.js";
import { asRead, shown, stateOf } from "./feed.js";
import { Button, Dot, Facts, copy, html, live, signal, styles } from "./html.js";
import { hear } from "./live.js";
import { TABS } from "./route.js";
import { clock, dur, full, line, look, percent, plural, size, span, status, title, when, words } from "./text.js";
import { Way, proof } from "./way.js";

await styles("/event.css");

/// The event that is open, whole, or null; `problem` where it could not be had.
export const opened = signal({ id: "", event: null, problem: null });

const cache = new Map();
export async function whole(id, rev, signal) {
  const found = cache.get(id);
  if (found && found.rev >= (rev ?? 0)) return found;
  const event = asRead(await call("GET", pathOf(id), { signal }));
  if (atAgent()) event.tapped = (await call("GET", `/agent/exchanges/${encodeURIComponent(event.id)}`, { signal }).catch(() => null))?.exchanges ?? [];
  const sums = (event.tapped ?? []).map((one) => one.request?.sha256).filter(Boolean);
  // The agent's own tap knows what the handler got.
  if (sums.length && event.body?.sha256) event.same_at_handler ??= sums.every((sum) => sum === event.body.sha256);
  cache.delete(id);
  cache.set(id, event);
  if (cache.size > 50) cache.delete(cache.keys().next().value);
  return event;
}

/// Also what stream and list tell: a newer state is asked for.
function opener() {
  let ends = null, id = "", rev = 0, timer = null;
  const load = async () => {
    ends?.abort();
    const one = (ends = new AbortController());
    try {
      const event = await whole(id, rev, one.signal);
      if (!one.signal.aborted) opened.value = { id, event, problem: null };
    } catch (problem) {
      if (!isAbort(problem) && !one.signal.aborted) opened.value = { id, event: null, problem };
    }
  };
  const show = (next) => {
    if (next === id) return;
    [id, rev] = [next, shown.rows.row(next)?.rev ?? 0];
    clearTimeout(timer);
    ends?.abort();
    const at = cache.get(next);
    opened.value = { id: next, event: at ?? null, problem: null };
    if (next) timer = setTimeout(load, at ? 0 : 60);
  };
  const stop = hear((event, data) => {
    const row = event === "rows" && data.rows?.find((one) => one.id === id);
    if (!row || (row.rev ?? 0) <= rev) return;
    rev = row.rev;
    clearTimeout(timer);
    timer = setTimeout(load, 250);
  });
  return { show, stop: () => { stop(); ends?.abort(); clearTimeout(timer); } };
}

/// What can be done to an event: the word, the act, its key.
const Acts = live(({ of }) => {
  const { kind, state, endpoint } = of, isRefused = kind === "refused", replays = canReplay(of), acting = may("act", endpoint), to = target(of);
  const all = [
    isRefused && ["Explain", "explain", "w"],
    replays && [to ? `Replay to ${to.label}` : "Replay…", "replay", "r"],
    replays && has("edit") && ["Edit and replay", "edit", "e"],
    acting && state === "dead" && ["Revive", "revive"],
    acting && state === "dead" && ["Drop", "drop"],
    acting && (state === "pending" || state === "waiting") && ["Cancel", "cancel"],
  ], more = [
    has("export") && isWhole(of) && ["Copy as curl", "curl", "c"],
    ["Compare", "compare", "="], ["Link", "link", "y"], isWhole(of) && ["Save…", "save"],
  ];
  const buttons = (some, plain) => some.filter(Boolean).map(([label, name, k]) => html`<${Button} key=${name} k=${k} cls=${plain || (k === "w" || k === "r" ? "main" : "")} onClick=${() => acts[name]([of])}>${label}<//>`);
  return html`<div class="acts">${buttons(all, "")}<span>${buttons(more, "plain")}</span>
    ${!isWhole(of) && html`<p class="note">${cutOff(of)} So it cannot be replayed, copied or saved.</p>`}</div>`;
});

/// Why not all of a body is kept.
const cutOff = ({ body, size: all }) => (body.kept ? `The first ${size(body.kept)} of ${size(all)}: live endpoints keep no more.` : "This endpoint’s journal keeps heads only; journal = \"bodies\" keeps the first 64 kB.");

/// A sentence of the relay, with times as the reader's clock has them.
const told = (text) => line(text.replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z/g, (time) => when(time)));

/// Advice with its commands set apart, so that they can be copied.
const Advice = ({ text }) => html`<p class="todo">${seenParts(text).map(([isCode, part], i) => (isCode ? html`<button type="button" class="code" key=${i} title="Copy" onClick=${() => copy(part, "The command")}>${line(part)}</button>` : told(part)))}</p>`;
const seenParts = (text) => text.split("`").map((part, i) => [i % 2 === 1, part]);

const toEvent = (id) => id && html`<${Link} class="mono" to=${{ e: id, at: "" }}>${line(id)}<//>`;

const factsOf = (event) => {
  const { answered, deadline_us: deadline, received_at: at, patience } = event;
  return [["event", event.id, "mono", "wide"], ["received", when(at) === clock(at) ? clock(at, "ms") : full(at)], ["agent", event.agent || "–"],
    ["verified", event.unproven ? "no: let pass unproven" : proof(event), "", "wide"], ["endpoint", event.endpoint + (event.kind === "live" ? ", live" : "")], ["sender", event.client],
    ["sender’s id", event.sender_id, "mono", "wide"], ["sender got", answered && answered.whose !== "nobody" && `${answered.status ?? "nothing"} after ${dur(answered.after_us)}`],
    ["patience", patience > 0 && deadline > 0 && `${percent(patience)} of ${span(deadline / 1e6)}`], ["order key", event.order_key, "mono", "wide"],
    ["replay of", toEvent(event.replay_of), "", "wide"], ["conflicts with", toEvent(event.conflict_with), "", "wide"],
    ["next try", event.next_try && when(event.next_try)], ["repeats", event.repeats > 0 && `${plural(event.repeats, "repeat")} answered without a call`], ["trace", event.trace_id, "mono", "wide"]];
};

const OURS = /^(relay-|x-forwarded-|forwarded$|x-real-ip$)/i;
export const Headers = ({ list, masked = [] }) => html`<table class="h"><thead class="vh"><tr><th scope="col">number</th><th scope="col">name</th><th scope="col">value</th></tr></thead><tbody>${list.map(([name, value], i) => html`
  <tr key=${i} class=${OURS.test(name) ? "relay" : ""}><td>${i + 1}</td><td>${line(name)}</td><td>${masked.some((one) => one.toLowerCase() === name.toLowerCase()) ? html`<span class="dim">masked</span>` : line(value)}</td></tr>`)}</tbody></table>`;

/// The attempt that is looked at: the one of the address, else the last.
export const attemptOf = (event, at) => event.attempts?.find((one) => String(one.number) === at) ?? event.attempts?.at(-1) ?? null;

function Side({ event, route }) {
  const { tab = "", form, q } = route, at = pathOf(event.id), onForm = (next) => go({ form: next }, { replace: true });
  if (tab === "headers") return html`<p class="note tools">in the order they came; the relay’s own are coloured; credentials are masked</p><${Headers} list=${event.headers ?? []} masked=${event.masked} />`;
  const attempt = attemptOf(event, route.at);
  if (tab && tab !== "request" && !attempt) return html`<p class="none">No handler was called.</p>`;
  if (tab === "attempts") return html`<table class="h attempts"><thead><tr>${["", "start", "outcome", "agent", "took", "answer"].map((name, i) => html`<th key=${i} scope="col">${name || html`<span class="vh">number</span>`}</th>`)}</tr></thead><tbody>${event.attempts.map((one) => html`
    <tr key=${one.number} aria-current=${one === attempt ? "true" : null}><td><${Button} cls="plain" aria-label=${`Attempt ${one.number}`} onClick=${() => go({ at: String(one.number), tab: "answer" })}>${one.number}<//></td><td>${when(one.started_at)}</td><td>${words(one.outcome)}${one.status ? ` ${one.status}` : ""}${one.resigned ? " ✎" : ""}</td><td>${line(one.agent ?? "–")}</td><td>${dur(one.duration_us || one.duration_ms * 1000)}</td><td>${one.answer ? size(one.answer.size) : "–"}</td></tr>
    ${one.sentence && html`<tr key=${`s${one.number}`} class="said"><td></td><td colspan="5">${line(one.sentence)}</td></tr>`}`)}</tbody></table>`;
  if (tab === "answer") {
    const { answer, number } = attempt;
    return html`${event.attempts.length > 1 && html`<div class="tools"><span class="dim">attempt ${number} of ${event.attempts.at(-1).number}</span>
        <${Button} cls="small" k="[" onClick=${() => acts.attempt(-1)}>Earlier<//><${Button} cls="small" k="]" onClick=${() => acts.attempt(1)}>Later<//></div>`}
      ${!answer ? html`<p class="none">${line(attempt.sentence || "There is no answer of a handler.")}</p>` : html`<${Headers} list=${answer.headers} />
      <${Body} path=${`${at}/attempts/${number}/body`} kept=${answer.size} total=${answer.size} type=${headerOf(answer, "content-type")} coding=${headerOf(answer, "content-encoding")} form=${form} onForm=${onForm} query=${q} name=${`${event.id}-answer-${number}`}
        >${answer.truncated && html`<span class="note">longer than what is kept</span>`}<//>`}`;
  }
  const { body = {}, same_at_handler: same } = event, told = sayers(event);
  return html`<${Body} path=${`${at}/body`} kept=${body.kept ?? event.size} total=${event.size} type=${body.content_type ?? headerOf(event, "content-type")} coding=${body.encoding} charset=${body.charset} form=${form} onForm=${onForm} query=${q} name=${event.id} why=${isWhole(event) ? "" : cutOff(event)}>
    ${typeof same === "boolean" && html`<span class=${`note ${same ? "" : "bad"}`} title=${body.sha256 && `SHA-256 ${body.sha256}`}><${Dot} kind=${same ? "ok" : "bad"} shape=${same ? "" : "no"} />${same ? "same" : "other"} bytes at the handler, ${told}</span>`}<//>`;
}

/// Whose word it is what the handler got: nobody but its agent can know.
function sayers({ attempts = [], body, same_at_handler: same, agent }) {
  const told = attempts.filter((one) => one.sha256_in && (same || one.sha256_in !== body?.sha256)).map((one) => one.agent), names = [...new Set(told.length ? told : [agent])];
  return `${names.length > 1 ? "say" : "says"} ${names.map((name) => line(name || "its agent")).join(", ")}`;
}

export const headerOf = (event, name) => event.headers?.find(([key]) => key.toLowerCase() === name)?.[1] ?? "";

function Tabs({ event, tab }) {
  const attempt = attemptOf(event, ""), notes = { request: size(event.size), answer: attempt?.answer ? size(attempt.answer.size) : "none", headers: String(event.headers?.length ?? ""), attempts: String(event.attempts?.length ?? event.attempt_count ?? 0) };
  const key = (pressed) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[pressed.key];
    if (!by) return;
    pressed.preventDefault();
    const next = TABS[(TABS.indexOf(tab) + by + TABS.length) % TABS.length];
    go({ tab: next }, { replace: true });
    pressed.currentTarget.querySelector(`#tab-${next}`)?.focus();
  };
  return html`<div class="tabs" role="tablist" aria-label="Parts of the event" onKeyDown=${key}>${TABS.map((name) => html`<button type="button" role="tab" key=${name} id=${`tab-${name}`} aria-selected=${String(tab === name)} aria-controls="side" tabindex=${tab === name ? 0 : -1}
    onClick=${() => go({ tab: name }, { replace: true })}>${name[0].toUpperCase() + name.slice(1)} <small>${notes[name]}</small></button>`)}</div>`;
}

export const Detail = live(({ id, route, give, onBack }, own) => {
  own.state.value;
  own.show(id);
  const { event, problem } = opened.value, row = shown.rows.row(id), at = event?.id ? event : row, tab = route.tab || "request";
  const box = (inside) => html`<${Place} give=${give} onBack=${onBack}>${inside}<//>`;
  if (problem && !row) return box(html`<p class="none pad">${problem.message}</p>`);
  if (!at) return box(html`<p class="none pad" aria-busy="true">Loading…</p>`);
  const seems = look(row && row.rev > (at.rev ?? 0) ? row : at), code = status(at);
  return box(html`<div class="dh"><div class="line"><h2 title=${title(at)}>${title(at)}</h2><span class="grow"></span><span class=${`badge ${seems.kind}`}><${Dot} shape=${seems.shape} />${seems.word}${/^\d{3}$/.test(code) ? ` · ${code}` : ""}</span></div>
      ${at.event_type && html`<p class="req mono"><b>${line(at.method)}</b> ${line(at.target || "/")}</p>`}</div>
    <${Acts} of=${at} />
    ${problem && html`<p class="none pad">${problem.message}</p>`}
    ${event ? html`
      ${(event.sentence || event.advice) && html`<div class="why"><span class="code">why</span><p>${told(event.sentence || event.why || "")}</p>${event.advice && html`<span class="code">do</span><${Advice} text=${event.advice} />`}
        ${(event.findings ?? []).map((one, i) => html`<span class="code" key=${`c${i}`}>found</span><p key=${i}>${line(one.message)}</p>`)}</div>`}
      <${Way} event=${event} /><${Facts} cls="facts" of=${factsOf(event)} />
      <div class="sub"><${Tabs} event=${event} tab=${tab} /><div id="side" role="tabpanel" aria-labelledby=${`tab-${tab}`}><${Side} event=${event} route=${route} /></div></div>` : html`<p class="none pad" aria-busy="true">Loading…</p>`}`);
}, (_, self) => {
  const own = opener(), { show } = own;
  own.state = stateOf(() => address.value.e);
  // The address may not be read while it is drawn: what is opened is a signal that the drawing reads.
  own.show = (id) => queueMicrotask(() => show(id));
  self.mounted = () => own.stop;
  return own;
});
