// Figures of the last hour or day: rate by outcome, latency, what waits, patience, the store's size.
//
// Drawings are SVG with classes. Each is read value by value with the arrow keys.

import { Link } from "./app.js";
import { html, live, Seg, signal } from "./html.js";
import { asks, Part, question, Room } from "./rooms.js";
import { clock, count, dur, line, percent, size, span } from "./text.js";

const W = 720, H = 130, LEFT = 52, WIDE = W - LEFT;
const OUTCOMES = [["2xx", "calm"], ["4xx", "odd"], ["5xx", "light"], ["failed", "bad"], ["refused", "off"]], QUANTILES = [["p50_us", "off"], ["p90_us", "odd"], ["p99_us", "light"]];

const sum = (list) => (list ?? []).reduce((all, one) => all + (one ?? 0), 0), most = (list) => Math.max(0, ...(list ?? []).map((one) => one ?? 0));
/// A round number that is not below a value, for the top of a scale.
export function nice(value) {
  const of = 10 ** Math.floor(Math.log10(value || 1));
  return value > 0 ? [1, 2, 3, 4, 6, 8, 10].map((n) => n * of).find((n) => n >= value) : 1;
}

const Chart = live(({ title, of, n, lines, read, keys = [], children }, own) => {
  const at = own.at.value, i = Math.min(at ?? n - 1, n - 1), time = (step, form) => clock(new Date(Date.parse(of.from) + step * of.step_s * 1000), form);
  const move = (to) => { own.at.value = Math.max(0, Math.min(n - 1, to)); }, leave = () => { own.at.value = null; };
  const place = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    move(Math.floor(((event.clientX - box.left) / box.width * W - LEFT) / WIDE * n));
  };
  const key = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30, Home: -n, End: n }[event.key];
    if (by) event.preventDefault(), event.stopPropagation(), move(i + by);
  };
  return html`<figure class="chart"><figcaption><h2>${title}</h2><span class="dim">${at === null ? "" : `${time(i)}  `}${read(i)}</span></figcaption>
    <svg viewBox=${`0 0 ${W} ${H + 18}`} role="slider" tabindex="0" aria-label=${title} aria-valuemin="0" aria-valuemax=${n - 1} aria-valuenow=${i} aria-valuetext=${`${time(i)}, ${read(i)}`} onPointerMove=${place} onPointerLeave=${leave} onBlur=${leave} onKeyDown=${key}>
      ${lines.map(([y, label]) => html`<path class="rule" d=${`M${LEFT} ${H - y * H + .5}h${WIDE}`} /><text x=${LEFT - 6} y=${Math.max(9, H - y * H + 3)} text-anchor="end">${label}</text>`)}${children}
      ${at !== null && html`<path class="rule at" d=${`M${LEFT + (i + .5) / n * WIDE} 0v${H}`} />`}
      ${[0, .25, .5, .75, 1].map((part) => html`<text x=${LEFT + part * WIDE} y=${H + 14} text-anchor=${part ? part < 1 ? "middle" : "end" : "start"}>${time(part * n, "m")}</text>`)}</svg>
    <ul class="plain legend">${keys.map(([word, cls, all]) => html`<li><i class=${`key ${cls}`}></i>${word} <b>${all}</b></li>`)}</ul></figure>`;
}, () => ({ at: signal(null) }));

function Rate({ of, n }) {
  const top = nice(most(Array.from({ length: n }, (_, i) => sum(OUTCOMES.map(([key]) => of[key]?.[i])))) / of.step_s), wide = (WIDE / n - .4).toFixed(2), floor = Array(n).fill(H);
  const path = (key) => (of[key] ?? []).map((many, i) => {
    const high = (many ?? 0) / top / of.step_s * H, from = floor[i];
    floor[i] -= high;
    return high ? `M${(LEFT + i / n * WIDE).toFixed(1)} ${from.toFixed(1)}h${wide}v${-high.toFixed(1)}h-${wide}z` : "";
  }).join("");
  return html`<${Chart} title="Webhooks a second" of=${of} n=${n} lines=${[[0, "0"], [.5, String(top / 2)], [1, String(top)]]} keys=${OUTCOMES.map(([key, cls]) => [key, cls, count(sum(of[key]))])}
    read=${(i) => OUTCOMES.filter(([key]) => of[key]?.[i]).map(([key]) => `${count(of[key][i])} ${key}`).join(", ") || "nothing"}>${OUTCOMES.map(([key, cls]) => html`<path class=${`fill ${cls}`} d=${path(key)} />`)}<//>`;
}

/// A line through values, broken where there is none.
const through = (values, n, y) => (values ?? []).map((value, i, all) => value === null ? "" : `${i && all[i - 1] !== null ? "L" : "M"}${(LEFT + (i + .5) / n * WIDE).toFixed(1)} ${(H - y(value) * H).toFixed(1)}h.8`).join("");

function Latency({ of, n }) {
  const values = QUANTILES.flatMap(([key]) => of[key] ?? []).filter((us) => us > 0), low = Math.floor(Math.log10(Math.min(1e4, ...values))), high = Math.max(low + 1, Math.ceil(Math.log10(most(values) || 1e6)));
  const y = (us) => Math.max(0, (Math.log10(us || 1) - low) / (high - low)), lines = Array.from({ length: high - low + 1 }, (_, i) => [i / (high - low), dur(10 ** (low + i)).replace(/\.0+(?=\D)/, "")]);
  return html`<${Chart} title="Time to the answer, logarithmic" of=${of} n=${n} lines=${lines} keys=${QUANTILES.map(([key, cls]) => [key.slice(0, 3), cls])} read=${(i) => QUANTILES.filter(([key]) => of[key]?.[i]).map(([key]) => `${key.slice(0, 3)} ${dur(of[key][i])}`).join(", ") || "no answers"}>
    ${QUANTILES.map(([key, cls]) => html`<path class=${`stroke ${cls}`} d=${through(of[key], n, y)} />`)}<//>`;
}

const Backlog = ({ of, n, top = nice(most(of.waiting)) }) => html`<${Chart} title="Waiting" of=${of} n=${n} lines=${[[0, "0"], [1, count(top)]]} read=${(i) => `${count(of.waiting?.[i] ?? 0)} waiting${of.oldest_s?.[i] ? `, the oldest for ${span(of.oldest_s[i])}` : ""}`}>
  <path class="stroke odd" d=${through(of.waiting, n, (many) => many / top)} /><//>`;

const Meter = ({ name, part, text }) => html`<li>${name}<svg class="meter" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true"><path class="under" d="M0 0h100v6H0z" /><path class=${`fill ${part > .85 ? "bad" : part > .5 ? "odd" : "calm"}`} d=${`M0 0h${Math.min(1, part) * 100}v6H0z`} /></svg><span class="num">${text}</span></li>`;

export default live((props, { since, asked }) => {
  const of = asked.data.value ?? {}, n = of.received?.length ?? 0, patience = Object.entries(of.patience ?? {}).sort((one, other) => other[1] - one[1]);
  return html`<${Room} title="Figures" asked=${asked} note=${n ? `${count(sum(of.received))} webhooks, in steps of ${span(of.step_s)}` : ""}
      acts=${html`<${Seg} label="Since when" value=${since.value} options=${[["1h", "Hour"], ["1d", "Day"]]} onPick=${(value) => { since.value = value; asked.again(); }} />`}>
    ${n ? html`<${Rate} of=${of} n=${n} /><${Latency} of=${of} n=${n} /><${Backlog} of=${of} n=${n} />
      <${Part} title="The senders’ patience"><p class="dim">The largest part of a deadline that was used, by endpoint.</p><ul class="plain meters">${patience.map(([name, part]) => html`<${Meter} key=${name} name=${html`<${Link} to=${{ room: "endpoints", name }}>${line(name)}<//>`} part=${part} text=${percent(part)} />`)}</ul><//>
      ${of.store_limit > 0 && html`<${Part} title="The store"><ul class="plain meters"><${Meter} name=${`of ${size(of.store_limit)}`} part=${of.store_bytes / of.store_limit} text=${size(of.store_bytes)} /></ul><//>`}`
      : html`<p class="none">Nothing came since the relay started.</p>`}<//>`;
}, (props, self) => {
  const since = signal("1h");
  return { since, asked: asks(self, question("/figures", { query: () => ({ since: since.value }), types: ["figures"], every_s: 10 })) };
});
