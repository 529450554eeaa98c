// The last hour as bars: how much came, and what went wrong. Dragging over it asks for that time.
//
// The figures are the relay's; without them nothing is drawn. It holds nothing but the newest answer.

import { call, has } from "./api.js";
import { html, live, signal } from "./html.js";
import { hear } from "./live.js";
import { clock, count, dur } from "./text.js";

const STEP_S = 30, BARS = 120, HIGH = 34;
const figures = signal(null);
let asked = 0;

async function load() {
  if (!has("figures") || document.hidden || Date.now() - asked < 5000) return;
  asked = Date.now();
  figures.value = await call("GET", "/figures", { query: { since: "60m", step: STEP_S } }).catch(() => figures.peek());
}

const sum = (...lists) => lists.reduce((all, list) => all + (list ?? []).reduce((a, b) => a + (b ?? 0), 0), 0);
const last = (list) => (list ?? []).findLast((value) => value !== null && value !== undefined);
const worst = (list) => (list ?? []).slice(-10).reduce((a, b) => Math.max(a, b ?? 0), 0);

/// Three layers of one column: calm, odd, bad.
function columns(told) {
  const n = told.received?.length ?? 0, from = Math.max(0, n - BARS), out = [];
  for (let i = from; i < n; i++) {
    const bad = (told["5xx"]?.[i] ?? 0) + (told.failed?.[i] ?? 0) + (told.refused?.[i] ?? 0), odd = told["4xx"]?.[i] ?? 0;
    out.push([Math.max(0, (told.received[i] ?? 0) - bad - odd), odd, bad]);
  }
  return out;
}

export const Hour = live(({ onRange }, own) => {
  const told = figures.value;
  if (!told?.received?.length) return null;
  const bars = columns(told), most = Math.max(4, ...bars.map((bar) => bar[0] + bar[1] + bar[2])), start = new Date(told.from).getTime() + Math.max(0, told.received.length - BARS) * told.step_s * 1000;
  const end = start + bars.length * told.step_s * 1000, drag = own.drag.value;
  const minutes = told.received.slice(-Math.round(300 / told.step_s)), [low, high] = drag ? [Math.min(...drag), Math.max(...drag)] : [0, 0];
  const timeAt = (part) => new Date(start + part * (end - start)).toISOString();
  const part = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  };
  const all = sum(told.received.slice(-BARS)), wrong = sum(told["5xx"]?.slice(-BARS), told.failed?.slice(-BARS)), refused = sum(told.refused?.slice(-BARS));
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
          return h ? html`<rect class=${cls} x=${(i * 1200) / bars.length} y=${y} width=${1200 / bars.length - 2} height=${h} />` : null;
        });
      })}
      ${drag ? html`<rect class="picked" x=${low * 1200} y="0" width=${(high - low) * 1200} height=${HIGH} />` : null}
    </svg>
    <div class="axis" aria-hidden="true">${[0, 0.25, 0.5, 0.75, 1].map((at) => html`<span key=${at}>${clock(timeAt(at), "m")}</span>`)}</div></div>
    <div class="legend"><span><b>${count(Math.round(sum(minutes) / (minutes.length * told.step_s / 60)))}</b> a minute</span>
      ${last(told.p50_us) === undefined ? null : html`<span><b>${dur(last(told.p50_us))}</b> p50</span><span><b>${dur(worst(told.p99_us))}</b> p99</span>`}
      <span><b>${count(last(told.waiting) ?? 0)}</b> waiting</span></div></section>`;
}, (_, self) => {
  self.mounted = () => {
    asked = 0;
    load();
    const timer = setInterval(load, STEP_S * 1000), stop = hear((event) => { if (event === "figures") load(); });
    return () => { clearInterval(timer); stop(); };
  };
  return { drag: signal(null) };
});
