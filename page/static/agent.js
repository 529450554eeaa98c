// This agent: its link, its targets, what its tap holds, and the results of `diff`. On the agent's own page only.
//
// What stands here comes from the agent itself, so it is there while the relay is not.

import { Link } from "./app.js";
import { Dot, html, live } from "./html.js";
import { Ago, asks, Facts, question, Room, Table, Waiting } from "./rooms.js";
import { Tapped } from "./tap.js";
import { count, dur, line, plural, size, until } from "./text.js";

const LINK = new Map([["ready", ["ok", ""]], ["connecting", ["odd", "half"]], ["reconnecting", ["odd", "ring"]], ["refused", ["bad", "no"]], ["stopping", ["off", "dash"]]]);
const VERDICT = new Map([["same", ["ok", "", "same"]], ["status", ["bad", "tri", "status differs"]], ["body", ["odd", "tri", "body differs"]], ["slower", ["odd", "ring", "slower"]], ["failed", ["bad", "no", "no answer"]]]);

function LinkState({ of }) {
  const [kind, shape] = LINK.get(of.state) ?? ["odd", "ring"];
  return html`<span class="named"><${Dot} kind=${kind} shape=${shape} />${line(of.state)}</span>`;
}

const Targets = ({ list }) => html`<section class="part"><h2>Targets</h2><${Table} caption="Targets" columns=${[["endpoint"], ["target"], ["standing"], ["address for senders", "w"]]}>
  ${list.map((one) => html`<tr key=${`${one.endpoint} ${one.target}`}><th scope="row">${line(one.endpoint)}</th><td class="mono wrap">${line(one.target)}</td>
    <td>${line(one.standing ?? "")}</td><td class="w mono wrap">${line(one.public_url ?? "")}</td></tr>`)}<//></section>`;

const Tap = ({ of }) => html`<section class="part"><h2>Tap</h2><p class="prose">The agent remembers what went through it since it started: the bytes at the handler’s socket, their checksums and times. It stays when the link is down.</p>
  <${Facts} of=${[["exchanges", count(of?.exchanges ?? 0)], ["bytes", size(of?.bytes ?? 0)], ["given up for newer ones", count(of?.dropped ?? 0)]]} /><${Tapped} /></section>`;

const Verdict = ({ of }) => {
  const name = of.verdict ?? of.result ?? "";
  const [kind, shape, word] = VERDICT.get(name) ?? ["off", "ring", line(name || "unknown")];
  return html`<span class="named"><${Dot} kind=${kind} shape=${shape} />${word}</span>`;
};

const Diffs = ({ list }) => html`<section class="part"><h2>Shadow</h2>
  ${list?.length ? html`<${Table} caption="Results of diff" columns=${[["event"], ["result"], ["what differs"], ["took", "num w"], ["when", "num w"]]}>
    ${list.map((one) => html`<tr key=${one.id}><th scope="row"><${Link} class="mono" to=${{ room: "events", e: one.event_id ?? one.id }}>${line(one.event_type || one.event_id || one.id)}<//></th>
      <td><${Verdict} of=${one} /></td><td class="wrap">${line(one.summary ?? "")}</td><td class="num w">${dur(one.took_us)}</td><td class="num w"><${Ago} at=${one.at} /></td></tr>`)}<//>`
    : html`<p class="dim">No event was sent to a second handler. <code>relay-client diff --since 1d --against URL</code> does that.</p>`}</section>`;

export default live((props, own) => {
  const of = own.agent.data.value;
  return html`<${Room} title="This agent" problem=${own.agent.problem.value}>
    ${!of ? own.agent.problem.value ? null : html`<${Waiting} />` : html`
      <${Facts} of=${[["name", line(of.name)], ["link", html`<${LinkState} of=${of} />`], ["why", of.why ? line(of.why) : null], ["tries again", of.again_at ? until(of.again_at) : null], ["since", of.since ? html`<${Ago} at=${of.since} />` : null],
        ["way and back", dur(of.link_us)], ["instance", line(of.instance), true], ["relay", of.relay ? line(of.relay) : null, true], ["version", of.version ? line(of.version) : null]]} />
      ${of.targets?.length ? html`<${Targets} list=${of.targets} />` : html`<p class="dim">${plural(0, "target")}</p>`}
      <${Tap} of=${of.tap} /><${Diffs} list=${own.diffs.data.value?.diffs} />`}
  <//>`;
}, (props, self) => {
  const own = { agent: question("/agent", { types: ["agent"], every_s: 2 }), diffs: question("/agent/diffs", { every_s: 10 }) };
  asks(self, own.agent, own.diffs);
  return own;
});
