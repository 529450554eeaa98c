// Figures: rate by outcome, latency, backlog, patience and the store's size, of the last hour or day.
//
// The relay keeps them in memory; longer is Prometheus's work. Drawings are SVG with classes; each can be read with the
// arrow keys, value by value.

import { Link } from "./app.js";
import { html, live, Seg, signal } from "./html.js";
import { asks, Button, question, Room, Waiting } from "./rooms.js";
import { clock, count, dur, line, percent, size, span } from "./text.js";

const W = 720, H = 130, LEFT = 52, BOTTOM = 18;
const OUTCOMES = [["2xx", "calm", "2xx"], ["4xx", "odd", "4xx"], ["5xx", "badlight", "5xx"], ["failed", "bad", "failed"], ["refused", "ring", "refused"]];
const QUANTILES = [["p50_us", "p50", "p50"], ["p90_us", "odd", "p90"], ["p99_us", "p99", "p99"]];

const at = (of, i) => new Date(new Date(of.from).getTime() + i * of.step_s * 1000).toISOString();
const x = (n) => (i) => LEFT + (W - LEFT) * (n > 1 ? i / n : 0);
/// A round number that is not below a value, for the top of a scale.
export function nice(most) {
  if (!(most > 0)) return 1;
  const of = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 3, 4, 6, 8, 10].map((n) => n * of).find((n) => n >= most);
}

/// A frame with a scale: `lines` are `[y from 0 to 1, label]`. Left and right move through the steps.
const Chart = live(({ title, of, n, lines, read, children }, own) => {
  const i = Math.min(own.at.value ?? n - 1, n - 1), X = x(n);
  const move = (to) => { own.at.value = Math.max(0, Math.min(n - 1, to)); };
  const keys = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30, Home: -n, End: n };
  const place = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    move(Math.floor(((event.clientX - box.left) / box.width * W - LEFT) / (W - LEFT) * n));
  };
  return html`<figure class="chart"><figcaption><h2>${title}</h2><span class="dim read">${own.at.value === null ? "" : `${clock(at(of, i))}  `}${read(i)}</span></figcaption>
    <svg viewBox=${`0 0 ${W} ${H + BOTTOM}`} role="slider" tabindex="0" aria-label=${title} aria-valuemin="0" aria-valuemax=${n - 1} aria-valuenow=${i} aria-valuetext=${`${clock(at(of, i))}, ${read(i)}`}
      onPointerMove=${place} onPointerLeave=${() => { own.at.value = null; }} onBlur=${() => { own.at.value = null; }}
      onKeyDown=${(event) => { const by = keys[event.key]; if (by) { event.preventDefault(); event.stopPropagation(); move(i + by); } }}>
      ${lines.map(([y, label]) => html`<g key=${label}><line class="rule" x1=${LEFT} x2=${W} y1=${H - y * H + .5} y2=${H - y * H + .5} /><text x=${LEFT - 6} y=${Math.max(9, H - y * H + 3.5)} text-anchor="end">${label}</text></g>`)}
      ${children}
      ${own.at.value === null ? null : html`<line class="cursor" x1=${X(i + .5)} x2=${X(i + .5)} y1="0" y2=${H} />`}
      ${[0, .25, .5, .75, 1].map((part) => html`<text key=${part} x=${LEFT + part * (W - LEFT)} y=${H + 14} text-anchor=${part === 0 ? "start" : part === 1 ? "end" : "middle"}>${clock(at(of, part * n), "m")}</text>`)}
    </svg></figure>`;
}, () => ({ at: signal(null) }));

const sum = (list) => (list ?? []).reduce((one, other) => one + (other ?? 0), 0);
const max = (list) => (list ?? []).reduce((one, other) => Math.max(one, other ?? 0), 0);

function Rate({ of, n }) {
  const X = x(n), width = Math.max(.5, (W - LEFT) / n - .4);
  const tops = Array.from({ length: n }, (_, i) => OUTCOMES.reduce((all, [key]) => all + (of[key]?.[i] ?? 0), 0));
  const most = nice(max(tops) / of.step_s), scale = H / (most * of.step_s);
  const path = new Map(OUTCOMES.map(([, cls]) => [cls, ""]));
  for (let i = 0; i < n; i++) {
    let y = H;
    for (const [key, cls] of OUTCOMES) {
      const h = (of[key]?.[i] ?? 0) * scale;
      if (h > 0) path.set(cls, `${path.get(cls)}M${X(i).toFixed(1)} ${y.toFixed(1)}h${width.toFixed(1)}v${(-h).toFixed(1)}h${(-width).toFixed(1)}z`);
      y -= h;
    }
  }
  const read = (i) => OUTCOMES.filter(([key]) => of[key]?.[i]).map(([key, , word]) => `${count(of[key][i])} ${word}`).join(", ") || "nothing";
  return html`<${Chart} title="Webhooks a second" of=${of} n=${n} read=${read} lines=${[[0, "0"], [.5, String(most / 2)], [1, String(most)]]}>
    ${[...path].map(([cls, d]) => d ? html`<path key=${cls} class=${`fill ${cls}`} d=${d} />` : null)}<//>
    <ul class="plain legend">${OUTCOMES.map(([key, cls, word]) => html`<li key=${key}><i class=${`key ${cls}`}></i>${word} <b>${count(sum(of[key]))}</b></li>`)}</ul>`;
}

/// A line through values, broken where there is none; `y` gives 0 to 1. A value between two gaps is a short dash.
function through(values, n, y) {
  const X = x(n);
  let d = "", open = false;
  for (let i = 0; i < n; i++) {
    const value = values?.[i];
    if (value === null || value === undefined) { open = false; continue; }
    d += `${open ? "L" : "M"}${X(i + .5).toFixed(1)} ${(H - y(value) * H).toFixed(1)}${open ? "" : "h.8"}`;
    open = true;
  }
  return d;
}

function Latency({ of, n }) {
  const values = QUANTILES.flatMap(([key]) => of[key] ?? []).filter((value) => value > 0);
  const low = Math.floor(Math.log10(values.reduce((one, other) => Math.min(one, other), 1e4)));
  const high = Math.max(low + 1, Math.ceil(Math.log10(max(values) || 1e6)));
  const y = (us) => Math.max(0, (Math.log10(Math.max(us, 1)) - low) / (high - low));
  const lines = Array.from({ length: high - low + 1 }, (_, i) => [i / (high - low), dur(10 ** (low + i)).replace(/\.0+(?=\D)/, "")]);
  const read = (i) => QUANTILES.filter(([key]) => of[key]?.[i]).map(([key, , word]) => `${word} ${dur(of[key][i])}`).join(", ") || "no answers";
  return html`<${Chart} title="Time to the answer" of=${of} n=${n} lines=${lines} read=${read}>
    ${QUANTILES.map(([key, cls]) => html`<path key=${key} class=${`stroke ${cls}`} d=${through(of[key], n, y)} />`)}<//>
    <ul class="plain legend">${QUANTILES.map(([key, cls, word]) => html`<li key=${key}><i class=${`key ${cls}`}></i>${word}</li>`)}<li class="dim">logarithmic</li></ul>`;
}

function Backlog({ of, n }) {
  const most = nice(max(of.waiting));
  const read = (i) => `${count(of.waiting?.[i] ?? 0)} waiting${of.oldest_s?.[i] ? `, the oldest for ${span(of.oldest_s[i])}` : ""}`;
  return html`<${Chart} title="Waiting" of=${of} n=${n} read=${read} lines=${[[0, "0"], [1, count(most)]]}>
    <path class="stroke odd" d=${through(of.waiting, n, (value) => value / most)} /><//>`;
}

const Bar = ({ part, kind }) => html`<svg class="meter" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true"><rect class="under" width="100" height="6" /><rect class=${`fill ${kind}`} width=${Math.min(100, part * 100)} height="6" /></svg>`;

const Patience = ({ of }) => {
  const list = Object.entries(of.patience ?? {}).sort((one, other) => other[1] - one[1]);
  return html`<section class="part"><h2>The senders’ patience</h2><p class="dim">The largest part of a deadline that was used, by endpoint.</p>
    ${list.length ? html`<ul class="plain meters">${list.map(([name, part]) => html`<li key=${name}><${Link} to=${{ room: "endpoints", name }}>${line(name)}<//>
      <${Bar} part=${part} kind=${part > .85 ? "bad" : part > .5 ? "odd" : "calm"} /><span class="num">${percent(part)}</span></li>`)}</ul>` : html`<p>Nothing was answered yet.</p>`}</section>`;
};

const Store = ({ of }) => of.store_bytes === null || of.store_bytes === undefined ? null : html`<section class="part"><h2>The store</h2><ul class="plain meters"><li><span>${of.store_limit ? `of ${size(of.store_limit)}` : "size"}</span>
  ${of.store_limit ? html`<${Bar} part=${of.store_bytes / of.store_limit} kind=${of.store_bytes > .8 * of.store_limit ? "bad" : "calm"} />` : html`<span></span>`}<span class="num">${size(of.store_bytes)}</span></li></ul></section>`;

export default live((props, own) => {
  const of = own.asked.data.value, n = of?.received?.length ?? 0;
  const acts = html`<${Seg} label="Since when" value=${own.since.value} options=${[["1h", "Hour"], ["1d", "Day"]]} onPick=${(since) => { own.since.value = since; own.asked.again(); }} />`;
  return html`<${Room} title="Figures" note=${of ? `${count(sum(of.received))} webhooks, in steps of ${span(of.step_s)}` : ""} acts=${acts} problem=${own.asked.problem.value}>
    ${!of ? own.asked.problem.value ? html`<p><${Button} onClick=${own.asked.again}>Ask again<//></p>` : html`<${Waiting} />`
      : n ? html`<${Rate} of=${of} n=${n} /><${Latency} of=${of} n=${n} /><${Backlog} of=${of} n=${n} /><div class="two"><${Patience} of=${of} /><${Store} of=${of} /></div>`
      : html`<p class="none">Nothing came since the relay started.</p>`}
  <//>`;
}, (props, self) => {
  const since = signal("1h");
  const own = { since, asked: question("/figures", { query: () => ({ since: since.value }), types: ["figures"], every_s: 10 }) };
  asks(self, own.asked);
  return own;
});
