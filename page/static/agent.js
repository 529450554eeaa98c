// This agent: its link, its targets, what its tap holds, and the results of `diff`. On the agent's own page only.
//
// It asks the agent alone, so all of it is there while the link is down. Bodies are shown as text, to 64 KiB.

import { Link } from "./app.js";
import { ask } from "./api.js";
import { Button, Dot, Facts, html, live, signal } from "./html.js";
import { Standing } from "./agents.js";
import { act, ago, asks, Part, path, question, Room, Table } from "./rooms.js";
import { clock, count, dur, line, seen, size, until, words } from "./text.js";

const LINK = new Map([["ready", ["ok"]], ["connecting", ["odd", "half"]], ["reconnecting", ["odd", "ring"]], ["refused", ["bad", "no"]]]), SAYS = new Map([["same", ["ok"]], ["status", ["bad", "tri"]], ["body", ["odd", "tri"]], ["slower", ["odd", "ring"]], ["unanswered", ["bad", "no"]]]);
const Look = ({ of, text }) => {
  const [kind, shape] = of ?? ["off", "ring"];
  return html`<span class="named"><${Dot} kind=${kind} shape=${shape} />${text}</span>`;
};

const SHOWN = 65_536;
const Body = live(({ of }, text) => html`<pre class="said" tabindex="0">${text.value}</pre>${of.size > SHOWN && html`<p class="dim">The first ${size(SHOWN)} of ${size(of.size)}.</p>`}`, ({ from, of }, self) => {
  const text = signal(of.size ? "…" : "");
  self.mounted = () => {
    if (of.kept) ask("GET", from).then((answer) => answer.arrayBuffer()).then((bytes) => { text.value = seen(new TextDecoder().decode(bytes.slice(0, SHOWN))); }, (problem) => { text.value = line(problem.message); });
  };
  return text;
});

const One = ({ of, onClose }) => {
  const side = (title, name, headers) => html`<h3>${title}, ${size(of[name].size)}</h3><ul class="plain lines mono">${headers.map(([key, value]) => html`<li><span class="dim">${line(key)}</span><span class="wrap">${of.masked.includes(key) ? "masked" : line(value)}</span></li>`)}</ul>
    <${Body} key=${name} of=${of[name]} from=${`/agent/exchanges${path(of.event_id, of.number, name)}`} />`;
  return html`<section class="part tapped" aria-label="An exchange"><div class="gh"><h3>${line(of.method)} <span class="mono">${line(of.target)}</span></h3><span class="grow"></span><${Button} onClick=${onClose}>Close<//></div>
    <${Facts} of=${[["event", of.event_id, "mono"], ["attempt", of.attempt], ["called after", dur(of.called_us)], ["request was there after", dur(of.sent_us)], ["answer began after", dur(of.head_us)], ["ended after", dur(of.ended_us)],
      ["request, SHA-256", of.request.sha256, "mono"], ["answer, SHA-256", of.answer.sha256, "mono"], ["why there is no answer", of.error]]} />${side("Request", "request", of.headers)}${side(`Answer ${of.status ?? ""}`, "answer", of.answer_headers)}</section>`;
};

const Tapped = live((props, own) => {
  const open = own.open.value, cols = [["request", "", (of) => html`<${Button} cls="plain" aria-expanded=${String(open?.number === of.number)} onClick=${() => own.show(of)}>${line(of.method)} ${line(of.target)}<//>`], ["time", "mono", (of) => clock(of.came_at)],
    ["answer", "", (of) => html`<${Look} of=${of.status < 400 && of.status ? ["ok"] : ["bad", "tri"]} text=${of.status ?? "none"} />`], ["endpoint", "w", "endpoint"], ["took", "num", (of) => dur(of.duration_us)], ["size", "num w", (of) => size(of.request.size)]];
  return html`${open && html`<${One} key=${open.number} of=${open} onClose=${() => { own.open.value = null; }} />`}<${Table} cap="Exchanges of this agent, the newest first" k="number" of=${own.data.value?.exchanges ?? []} cols=${cols} />`;
}, (props, self) => {
  const own = question("/agent/exchanges", { query: () => ({ limit: 50 }), types: ["exchanges"], every_s: 3 });
  own.open = signal(null);
  own.show = async (of) => { own.open.value = (await act("GET", `/agent/exchanges${path(of.event_id)}`))?.exchanges?.find((one) => one.number === of.number) ?? null; };
  return asks(self, own);
});

const DIFFS = [["event", "", (of) => html`<${Link} to=${{ room: "events", e: of.event_id }}>${line(of.event_type || of.event_id)}<//>`], ["result", "", (of) => html`<${Look} of=${SAYS.get(of.verdict)} text=${words(of.verdict)} />`], ["recorded, now", "", (of) => `${of.recorded_status ?? "–"}, ${of.status ?? "–"}`], ["what differs", "mono wrap", (of) => line(of.error ?? of.differences.slice(0, 3).join("; "))], ["against", "w mono wrap", "against"],
  ["took", "num w", (of) => dur(of.took_us)], ["when", "num w", ago("at")]];

export default live((props, own) => {
  const of = own.agent.data.value ?? {}, diffs = own.diffs.data.value?.diffs ?? [], tap = of.tap ?? {};
  return html`<${Room} title="This agent" asked=${own.agent}>
    <${Facts} of=${[["name", of.name], ["link", html`<${Look} of=${LINK.get(of.state)} text=${line(of.state)} />`], ["why", of.why], ["tries again", of.again_at && until(of.again_at)], ["since", ago("since")(of)], ["way and back", dur(of.link_us)], ["relay", of.relay, "mono"], ["version", of.version]]} />
    <${Part} title="Targets"><${Table} cap="Targets" k=${(one) => one.endpoint + one.target} of=${of.targets ?? []} cols=${[["endpoint", "", (one) => html`<ul class="plain lines"><${Standing} of=${{ ...one, name: one.endpoint }} /></ul>`], ["target", "mono wrap", "target"], ["address for senders", "w mono wrap", "public_url"]]} /><//>
    <${Part} title="Tap"><p class="say">What went through this agent since it started, as the handler’s socket saw it: ${count(tap.exchanges ?? 0)} exchanges, ${size(tap.bytes ?? 0)}; ${count(tap.dropped ?? 0)} older ones made room. It stays when the link is down.</p><${Tapped} /><//>
    <${Part} title="Shadow">${diffs.length ? html`<${Table} cap="Results of diff" k="number" of=${diffs} cols=${DIFFS} />` : html`<p class="dim">No event was sent to a second handler. <code>relay-client diff --since 1d --against URL</code> does that.</p>`}<//><//>`;
}, (props, self) => {
  const own = { agent: question("/agent", { types: ["agent"], every_s: 2 }), diffs: question("/agent/diffs", { every_s: 10 }) };
  asks(self, own.agent, own.diffs);
  return own;
});
