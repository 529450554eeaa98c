// The way that an event took, as bars on one scale.
//
// `stepsOf` and `scaleOf` are pure: hops in, bars and places out. Waits that are more than half of the way are drawn
// shortened, and the scale says so.

import { html } from "./html.js";
import { clock, dur, line, size, when, words } from "./text.js";

const WHOSE = { handler: "the handler’s own", ack: "the ack", relay: "the relay’s own", recorded: "as recorded", nobody: "nobody waited" };
const kindOf = (status) => (status >= 200 && status < 400 ? "ok" : status >= 400 && status < 500 ? "odd" : "bad");

/// `[{what, note, from, to, kind}]` in microseconds from the first byte.
export function stepsOf(event, now = Date.now()) {
  const hops = [...(event.hops ?? [])].sort((a, b) => a.at_us - b.at_us), out = [], ended = new Map();
  const isRefused = event.kind === "refused" || event.state === "refused", attempts = event.attempts ?? [];
  for (const hop of hops) if (["answer_head", "ended"].includes(hop.what)) ended.set(hop.number ?? 1, { ...ended.get(hop.number ?? 1), ...defined(hop) });
  let before = 0;
  const add = (what, note, from, to, kind) => out.push({ what, note, from, to: Math.max(from, to), kind });
  for (const [i, hop] of hops.entries()) {
    const { at_us: at, number } = hop;
    if (hop.what === "received") add("received", "first byte of the head", 0, 0, "");
    else if (hop.what === "body") add("head and body", [event.headers?.length ? `${event.headers.length} headers` : "", size(hop.bytes ?? event.size)].filter(Boolean).join(", "), before, at, "");
    else if (hop.what === "verified") add("verified", proof(event), before, at, "ok");
    else if (hop.what === "stored") add("stored", "on disk, synced", before, at, "ok");
    else if (hop.what === "attempt" || hop.what === "opened") {
      const end = ended.get(number ?? 1), made = attempts.find((one) => one.number === number), opens = hops.find((other) => other.what === "opened" && (other.number ?? 1) === (number ?? 1));
      const agent = line(hop.agent ?? made?.agent ?? ""), many = attempts.length > 1 || event.attempt_count > 1 ? `attempt ${number}: ` : "";
      if (hop.what === "attempt" && opens) {
        add(`${many}to ${agent || "the agent"}`, "", at, opens.at_us, "");
      } else {
        const status = end?.status ?? made?.status ?? null, lasts = end?.at_us ?? (made ? at + made.duration_us : hops[i + 1]?.at_us ?? at);
        const note = [status ?? (made && made.outcome !== "answered" ? words(made.outcome) : ""), agent && (status ? `from ${agent}` : `by ${agent}`)].filter(Boolean).join(" ");
        const kind = status ? kindOf(status) : made || end ? "bad" : "run", tapped = event.tapped?.find((one) => one.attempt === (number ?? 1)), there = tapped?.ended_us ?? tapped?.head_us;
        const began = at + Math.max(0, (lasts - at - there) / 2);
        add(`${many}${there ? "tunnel and handler" : "handler"}`, note, at, lasts, kind);
        // On the agent's machine its socket tells how much of that was the handler's.
        if (there) add("handler’s socket", "by this agent’s clock", began + tapped.called_us, Math.min(lasts, began + there), kind);
      }
    } else if (hop.what === "answered") {
      const whose = WHOSE[event.answered?.whose] ?? "", status = hop.status ?? event.answered?.status;
      add(isRefused ? "refused" : "answered sender", [isRefused ? line(event.why) : "", status, isRefused ? "" : whose].filter(Boolean).join(", "), Math.min(before, at), at, isRefused ? "bad" : status ? kindOf(status) : "");
    } else if (hop.what === "waits") {
      const came = new Date(event.received_at).getTime(), next = hops.slice(i + 1).find((other) => other.what === "attempt");
      const until = next?.at_us ?? Math.max(at, ((hop.until ? new Date(hop.until) : now) - came) * 1000);
      add(event.why === "waits_for_agent" && !next ? "waits for an agent" : "waits for retry", next ? "" : hop.until ? `until ${when(hop.until)}` : `since ${clock(new Date(came + at / 1000).toISOString())}`, at, until, "wait");
    }
    before = Math.max(before, hop.what === "attempt" ? ended.get(number ?? 1)?.at_us ?? at : at);
  }
  return out;
}

const defined = (hop) => Object.fromEntries(Object.entries(hop).filter(([, value]) => value !== null && value !== undefined));
/// What proved an event, and by which secret.
export const proof = (event) => [event.verified === "none" ? "none (open endpoint)" : line(event.verified || "no"), event.secret ? `secret ${event.secret.number} of ${event.secret.of}` : ""].filter(Boolean).join(", ");

/// How long all is, whether waits are shortened, and where a time stands, from 0 to 1.
export function scaleOf(steps) {
  const total = Math.max(1, ...steps.map((step) => step.to)), waits = steps.filter((step) => step.kind === "wait").sort((a, b) => a.from - b.from);
  const waited = waits.reduce((all, step) => all + step.to - step.from, 0), short = waited > total / 2 && waited < total;
  const factor = short ? ((total - waited) * 0.54) / waited : 1, drawn = total - waited + waited * factor;
  const place = (at) => {
    const passed = waits.reduce((all, step) => all + Math.max(0, Math.min(at, step.to) - step.from), 0);
    return Math.min(1, Math.max(0, (at - passed + passed * factor) / drawn));
  };
  return { total, short, place };
}

const percent = (part) => `${(part * 100).toFixed(2)}%`;

export function Way({ event }) {
  const steps = stepsOf(event);
  if (!steps.length) return null;
  const { total, short, place } = scaleOf(steps), { deadline_us: deadline } = event, isWithin = deadline && deadline <= total * 1.02;
  return html`<section class="blk"><h3>The way it took</h3><div class="hops" role="list">
    ${steps.map(({ what, note, from, to, kind }, i) => html`<div key=${i} class="hop" role="listitem">
      <div class="what" title=${note}>${what} <small>${note}</small></div>
      <div class="lane" aria-hidden="true"><i class=${kind} ref=${bar(place(from), place(to))}></i>${isWithin ? html`<u ref=${(el) => { if (el) el.style.left = percent(place(deadline)); }}></u>` : null}</div>
      <div class="d">${to > from ? dur(to - from) : from ? `+${dur(from)}` : "0"}</div></div>`)}
    </div><div class="hop scalerow"><span></span><div class="scale"><span>0</span><span>${short ? (steps.filter((step) => step.kind === "wait").length > 1 ? "the waits are shortened" : "the wait is shortened") : dur(total / 2)}${isWithin ? "; dashed: the deadline" : ""}</span><span>${dur(total)}</span></div><span></span></div></section>`;
}

const bar = (from, to) => (el) => {
  if (!el) return;
  el.style.left = `min(calc(100% - 2px), ${percent(from)})`;
  el.style.width = `max(2px, ${percent(to - from)})`;
};
