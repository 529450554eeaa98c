// Agents: who is attached, how each stands at its endpoints, and who went within the last day.
//
// A session can be ended here, after a question; the agent comes back by itself unless its token was revoked.

import { confirm, Dot, html, live } from "./html.js";
import { may } from "./api.js";
import { act, Ago, asks, Button, question, Room, Table, Waiting } from "./rooms.js";
import { dur, line, plural, until, when } from "./text.js";

const STANDING = new Map([["active", ["ok", ""]], ["standby", ["off", "ring"]], ["copy", ["off", "half"]]]);

async function disconnect(agent, again) {
  const others = agent.in_flight ? `${plural(agent.in_flight, "exchange")} under way will break.` : "Nothing is under way.";
  const text = `This ends the session of ${line(agent.name)}. ${others} The agent connects again by itself; to keep it away, revoke its token.`;
  if (!await confirm("Disconnect this agent?", text, "Disconnect")) return;
  await act("POST", `/agents/${encodeURIComponent(agent.session)}/disconnect`, { body: {} }, `${line(agent.name)} is disconnected`);
  again();
}

const Standing = ({ of }) => {
  const [kind, shape] = STANDING.get(of.standing) ?? ["odd", "tri"];
  return html`<li><${Dot} kind=${kind} shape=${shape} /><span>${line(of.name)}</span><span class="dim">${line(of.standing)}</span>
    <span class="dim">${of.in_flight}${of.capacity ? ` of ${of.capacity}` : ""} in flight</span>
    ${of.circuit_until ? html`<span class="bad">left alone until ${when(of.circuit_until)} (${until(of.circuit_until)})</span>` : null}</li>`;
};

const Attached = ({ agents, again }) => html`<${Table} caption="Attached agents"
  columns=${[["agent"], ["endpoints"], ["token", "w"], ["address", "w"], ["version", "w"], ["link", "num w"], ["since", "num w"], [""]]}>
  ${agents.map((one) => html`<tr key=${one.session}>
    <th scope="row"><div class="named"><${Dot} kind="ok" />${line(one.name)}</div><div class="dim mono cut" title="instance">${line(one.instance)}</div></th>
    <td><ul class="plain">${one.endpoints.map((of) => html`<${Standing} key=${of.name} of=${of} />`)}</ul>
      ${one.dropped_copies ? html`<p class="dim">${plural(one.dropped_copies, "copy", "copies")} dropped</p>` : null}</td>
    <td class="w">${line(one.token)}</td><td class="w mono">${line(one.address)}</td><td class="w">${line(one.version)}</td>
    <td class="num w">${dur(one.link_us)}</td><td class="num w"><${Ago} at=${one.since} /></td>
    <td class="num">${may("admin") ? html`<${Button} label=${`Disconnect ${line(one.name)}`} onClick=${() => disconnect(one, again)}>Disconnect<//>` : null}</td>
  </tr>`)}<//>`;

const Gone = ({ agents }) => html`<section class="part"><h2>Gone in the last day</h2>
  <${Table} caption="Agents that went" columns=${[["agent"], ["why"], ["token", "w"], ["address", "w"], ["was here", "num w"], ["went", "num"]]}>
    ${agents.map((one) => html`<tr key=${`${one.session} ${one.gone_at}`}>
      <th scope="row"><div class="named"><${Dot} kind="off" shape="ring" />${line(one.name)}</div></th>
      <td>${line(one.gone_why ?? "")}</td><td class="w">${line(one.token)}</td><td class="w mono">${line(one.address)}</td>
      <td class="num w">${dur((new Date(one.gone_at) - new Date(one.since)) * 1000)}</td><td class="num"><${Ago} at=${one.gone_at} /></td>
    </tr>`)}<//></section>`;

export default live((props, own) => {
  const list = own.data.value;
  const agents = list?.agents ?? [], gone = list?.gone ?? [];
  return html`<${Room} title="Agents" note=${list ? `${agents.length} attached` : ""} problem=${own.problem.value}>
    ${!list ? own.problem.value ? null : html`<${Waiting} />`
      : agents.length ? html`<${Attached} agents=${agents} again=${own.again} />`
      : html`<p class="none">No agent is attached. Webhooks of endpoints that keep events wait; live ones are answered 503.</p>`}
    ${gone.length ? html`<${Gone} agents=${gone} />` : null}
  <//>`;
}, (props, self) => {
  const own = question("/agents", { types: ["agents"], every_s: 10 });
  asks(self, own);
  return own;
});
