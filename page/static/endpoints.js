// Endpoints: the list, one of them, and holding back what waits.

import { Link, go } from "./app.js";
import { Button, Dot, Facts, html, live } from "./html.js";
import { may } from "./api.js";
import { Standing } from "./agents.js";
import { act, ago, asks, Needs, Part, path, question, Room, sure, Table } from "./rooms.js";
import { create, Setup } from "./setup.js";
import { count, dur, line, plural, until, when } from "./text.js";

const State = ({ of }) => {
  const [kind, text] = of.paused ? ["odd", "paused"] : of.circuit === "open" ? ["bad", "handler left alone"] : of.secret_available === false ? ["bad", "secret missing"] : of.agents ? [] : ["off", "no agent"];
  return text && html` <span class=${`badge ${kind}`}>${text}</span>`;
};

const many = (n, kind) => n ? html`<span class=${kind}>${count(n)}</span>` : n === 0 ? "0" : "";
const LIST = [["endpoint", "", (of) => html`<${Link} to=${{ room: "endpoints", name: of.name }}>${line(of.name)}<//><${State} of=${of} /><div class="dim mono cut">${line(of.url)}</div>`],
  ["provider", "", "provider"], ["mode", "w", "mode"], ["agents", "num", (of) => html`<span class="named"><${Dot} on=${of.agents > 0} />${of.agents}</span>`],
  ["waiting", "num", (of) => html`${many(of.waiting, "odd")}<div class="dim">${ago("oldest")(of)}</div>`], ["refused, 1 h", "num w", (of) => many(of.refusals, "bad")],
  ["p50", "num w", (of) => dur(of.p50_us)], ["p99", "num w", (of) => dur(of.p99_us)]];

/// Makes an endpoint.
export const New = ({ then }) => html`<${Needs} right="create"><${Button} cls="main" onClick=${() => create(then)}>New endpoint<//><//>`;

const List = live((props, own) => {
  const list = own.data.value?.endpoints ?? [];
  return html`<${Room} title="Endpoints" note=${plural(list.length, "endpoint")} asked=${own} acts=${html`<${New} then=${own.again} />`}>
    ${list.length ? html`<${Table} cap="Endpoints" k="name" of=${list} cols=${LIST} />` : html`<p class="none">There is none yet. An endpoint is an address that a provider posts to.</p>`}<//>`;
}, (props, self) => asks(self, question("/endpoints", { types: ["endpoints", "agents"], every_s: 10 })));

const Acts = ({ of, again }) => {
  const name = line(of.name), at = `/endpoints${path(of.name)}`, waits = plural(of.waiting, "event");
  const hold = (doing, done, ...asked) => async () => {
    await (asked.length ? sure(...asked, "POST", `${at}/${doing}`, `${name} ${done}`) : act("POST", `${at}/${doing}`, `${name} ${done}`));
    again();
  };
  const remove = async () => {
    const text = `Senders of ${name} will get 404.${of.waiting ? ` ${waits} that wait will be cancelled.` : ""}`;
    if (await sure("Delete this endpoint?", text, "Delete", "DELETE", at, `${name} is deleted`, { query: { force: of.waiting ? "true" : "" } })) go({ room: "endpoints", name: "" });
  };
  return html`${of.mode !== "live" && html`<${Needs} right="act" of=${of.name}>${of.paused ? html`<${Button} cls="main" onClick=${hold("resume", "delivers again")}>Resume<//>`
      : html`<${Button} onClick=${hold("pause", "is paused", "Pause this endpoint?", `Webhooks of ${name} are still taken and kept; none is delivered until you resume.`, "Pause")}>Pause…<//>`}<//>`}
    ${of.waiting > 0 && may("skip", of.name) && html`<${Button} onClick=${hold("skip", "skips what waited", "Skip what waits?", `${waits} of ${name} will not be delivered, by any agent. They stay in the list and can be replayed.`, `Skip ${count(of.waiting)}`)}>Skip what waits…<//>`}
    ${of.source === "api" && may("create", of.name) && html`<${Button} onClick=${remove}>Delete…<//>`}`;
};

/// Settings as rows of a key, a value, and where it is from.
export function flat({ from_provider = [], name, ...settings } = {}) {
  const walk = (value, key) => value && typeof value === "object" && !Array.isArray(value) ? Object.entries(value).flatMap(([more, one]) => walk(one, key ? `${key}.${more}` : more))
    : [{ key, value: typeof value === "string" ? value : JSON.stringify(value), from: from_provider.includes(key) ? "the provider’s row" : "" }];
  return walk(settings, "");
}

const One = live(({ name }, own) => {
  const of = own.of.data.value ?? {}, codes = new Map();
  for (const { why } of own.refused.data.value?.events ?? []) codes.set(why, (codes.get(why) ?? 0) + 1);
  return html`<${Room} title=${line(name)} asked=${own.of} note=${of.name && html`<${State} of=${of} />`} acts=${of.name ? html`<${Acts} of=${of} again=${own.of.again} />` : html`<${Link} to=${{ room: "endpoints" }}>All endpoints<//>`}>
    <${Facts} of=${[["address", of.url, "mono"], ["provider", of.provider], ["mode", of.mode], ["made by", of.source === "api" ? "the API" : "the config file"], ["waiting", of.waiting], ["oldest", ago("oldest")(of)],
      ["next try", of.next_due && until(of.next_due)], ["running", of.running], ["dead letters", of.dead ? html`<${Link} to=${{ room: "dead" }}>${count(of.dead)}<//>` : 0], ["paused since", of.paused_since && when(of.paused_since)],
      ["handler left alone until", of.circuit_until && when(of.circuit_until)], ["p50", dur(of.p50_us)], ["p99", dur(of.p99_us)]]} />
    <p><${Link} to=${{ room: "events", q: `endpoint:${name}` }}>Events of this endpoint<//></p><${Setup} name=${name} provider=${of.provider} url=${of.url} />
    <${Part} title="Agents">${of.attached?.length ? html`<ul class="plain lines">${of.attached.map((one) => html`<${Standing} of=${one}>, token ${line(one.token)}<//>`)}</ul>` : html`<p class="dim">None is attached.</p>`}<//>
    ${codes.size > 0 && html`<${Part} title="Refused in the last hour"><ul class="plain lines">${[...codes].map(([why, n]) => html`<li key=${why}><span class="bad">${count(n)}</span><${Link} class="mono" to=${{ room: "events", q: `endpoint:${name} why:${why}` }}>${line(why)}<//></li>`)}</ul><//>`}
    <${Part} title="Settings"><${Table} cap="Settings in force" k="key" of=${flat(of.settings)} cols=${[["key", "mono", "key"], ["value", "mono wrap", "value"], ["from", "w dim", "from"]]} /><//><//>`;
}, ({ name }, self) => {
  const own = { of: question(`/endpoints${path(name)}`, { types: ["endpoints", "agents"], every_s: 10 }), refused: question("/events", { query: () => ({ endpoint: name, kind: "refused", since: "1h", limit: 500 }), every_s: 30 }) };
  asks(self, own.of, own.refused);
  return own;
});

export default ({ route: { name } }) => name ? html`<${One} key=${name} name=${name} />` : html`<${List} />`;
