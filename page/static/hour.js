// The last hour as bars: how much came, and what went wrong. Dragging over it asks for that time.
//
// The figures are the relay's; without them nothing is drawn. It holds nothing but the newest answer.

import { call, has } from "./api.js";
import { html, live, signal } from "./html.js";
import { hear } from "./live.js";
import { clock, count, dur } from "./text.js";

const BARS = 120, HIGH = 34;
const figures = signal(null);
let asked = 0;

async function load() {
  if (!has("figures") || document.hidden || Date.now() - asked < 5000) return;
  asked = Date.now();
  figures.value = await call("GET", "/figures", { query: { since: "60m", step: 10 } }).catch(() => figures.peek());
}

const sum = (...lists) => lists.reduce((all, list) => all + (list ?? []).reduce((a, b) => a + (b ?? 0), 0), 0);
const last = (list) => (list ?? []).findLast((value) => value !== null && value !== undefined);
const worst = (list) => (list ?? []).slice(-30).reduce((a, b) => Math.max(a, b ?? 0), 0);

/// Columns of several steps each, with three layers: calm, odd, bad.
function columns(told, steps) {
  const out = [];
  for (let from = 0; from < told.received.length; from += steps) {
    const of = (...keys) => sum(...keys.map((key) => told[key]?.slice(from, from + steps)));
    const bad = of("5xx", "failed", "refused"), odd = of("4xx");
    out.push([Math.max(0, of("received") - bad - odd), odd, bad]);
  }
  return out;
}

export const Hour = live(({ onRange }, own) => {
  const told = figures.value;
  if (!told?.received?.length) return null;
  const bars = columns(told, Math.max(1, Math.ceil(told.received.length / BARS))), most = Math.max(4, ...bars.map((bar) => bar[0] + bar[1] + bar[2])), start = new Date(told.from).getTime();
  const end = start + told.received.length * told.step_s * 1000, drag = own.drag.value;
  const lately = sum(told.received.slice(-Math.round(300 / told.step_s))), [low, high] = drag ? [Math.min(...drag), Math.max(...drag)] : [0, 0];
  const timeAt = (part) => new Date(start + part * (end - start)).toISOString();
  const part = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  };
  const all = sum(told.received), wrong = sum(told["5xx"], told.failed), refused = sum(told.refused);
  return html`<section class="vol" aria-label="The last hour"><div>
    <svg viewBox="0 0 1200 ${HIGH}" preserveAspectRatio="none" role="img" aria-label=${`Requests in the last hour: ${count(all)}, ${count(wrong)} failed, ${count(refused)} refused`}
      onPointerDown=${(event) => { if (event.button) return; event.currentTarget.setPointerCapture(event.pointerId); own.drag.value = [part(event), part(event)]; }}
      onPointerMove=${(event) => { if (own.drag.value) own.drag.value = [own.drag.value[0], part(event)]; }}
      onPointerUp=${() => { own.drag.value = null; if (high - low > 0.01) onRange(timeAt(low), timeAt(high)); }}
      onPointerCancel=${() => { own.drag.value = null; }}>
      ${bars.map((bar, i) => {
        let y = HIGH;
        return ["calm", "oddbar", "badbar"].map((cls, k) => {
          const h = bar[k] && Math.max(1, (bar[k] / most) * HIGH);
          y -= h;
          return h > 0 && html`<rect class=${cls} x=${(i * 1200) / bars.length} y=${y} width=${1200 / bars.length - 2} height=${h} />`;
        });
      })}
      ${drag && html`<rect class="picked" x=${low * 1200} y="0" width=${(high - low) * 1200} height=${HIGH} />`}
    </svg>
    <div class="axis" aria-hidden="true">${[0, 0.25, 0.5, 0.75, 1].map((at) => html`<span key=${at}>${clock(timeAt(at), "m")}</span>`)}</div></div>
    <div class="legend">${lately < 5 ? html`<span><b>${lately}</b> in 5 min</span>` : html`<span><b>${count(Math.round(lately / 5))}</b> a minute</span>`}
      ${last(told.p50_us) !== undefined && html`<span><b>${dur(last(told.p50_us))}</b> p50</span><span><b>${dur(worst(told.p99_us))}</b> p99</span>`}
      <span><b>${count(last(told.waiting) ?? 0)}</b> waiting</span></div></section>`;
}, (_, self) => {
  self.mounted = () => {
    asked = 0;
    load();
    const timer = setInterval(load, 15_000), stop = hear((event) => { if (event === "figures") load(); });
    return () => { clearInterval(timer); stop(); };
  };
  return { drag: signal(null) };
});
