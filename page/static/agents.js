// Agents: who is attached, how each stands at its endpoints, and who went within the last day.

import { Button, Dot, html, live } from "./html.js";
import { may } from "./api.js";
import { ago, asks, Part, path, question, Room, sure, Table } from "./rooms.js";
import { dur, line, plural, until, when } from "./text.js";

const STANDING = new Map([["active", ["ok"]], ["standby", ["off", "ring"]], ["copy", ["off", "half"]]]);

/// A standing beside its shape.
export function Standing({ of, children }) {
  const [kind, shape] = STANDING.get(of.standing) ?? ["odd", "tri"];
  return html`<li><${Dot} kind=${kind} shape=${shape} />${line(of.name)} <span class="dim">${line(of.standing)}${children}</span></li>`;
}

const at = (one) => html`<ul class="plain lines">${one.endpoints.map((of) => html`<${Standing} of=${of}>, ${of.in_flight}${of.capacity ? ` of ${of.capacity}` : ""} in flight
  ${of.circuit_until && html` <span class="bad">left alone until ${when(of.circuit_until)} (${until(of.circuit_until)})</span>`}<//>`)}</ul>
  ${one.dropped_copies > 0 && html`<p class="dim">${plural(one.dropped_copies, "copy", "copies")} dropped</p>`}`;

const named = (kind, shape) => (one) => html`<span class="named"><${Dot} kind=${kind} shape=${shape} />${line(one.name)}</span><div class="dim mono cut">${line(one.instance)}</div>`;

const HERE = [["agent", "", named("ok")], ["endpoints", "", at], ["token", "w", "token"], ["address", "w mono", "address"], ["version", "w", "version"],
  ["link", "num w", (one) => dur(one.link_us)], ["since", "num w", ago("since")]];
const GONE = [["agent", "", named("off", "ring")], ["why", "", "gone_why"], ["token", "w", "token"], ["address", "w mono", "address"],
  ["was here", "num w", (one) => dur((new Date(one.gone_at) - new Date(one.since)) * 1000)], ["went", "num", ago("gone_at")]];

export default live((props, own) => {
  const { agents = [], gone = [] } = own.data.value ?? {};
  const end = async (one) => {
    const breaks = one.in_flight ? ` ${plural(one.in_flight, "exchange")} under way will break.` : "";
    await sure("Disconnect this agent?", `The session of ${line(one.name)} ends.${breaks} The agent connects again by itself; to keep it away, revoke its token.`, "Disconnect",
      "POST", `/agents${path(one.session)}/disconnect`, `${line(one.name)} is disconnected`);
    own.again();
  };
  const ends = may("admin") ? [["", "num", (one) => html`<${Button} aria-label=${`Disconnect ${line(one.name)}`} onClick=${() => end(one)}>Disconnect…<//>`]] : [];
  return html`<${Room} title="Agents" note=${`${agents.length} attached`} asked=${own}>
    ${agents.length ? html`<${Table} cap="Attached agents" k="session" of=${agents} cols=${[...HERE, ...ends]} />`
      : html`<p class="none">No agent is attached. Webhooks of endpoints that keep events wait; live ones get 503.</p>`}
    ${gone.length > 0 && html`<${Part} title="Gone in the last day"><${Table} cap="Agents that went" k="session" of=${gone} cols=${GONE} /><//>`}<//>`;
}, (props, self) => asks(self, question("/agents", { types: ["agents"], every_s: 10 })));
