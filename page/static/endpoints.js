// Endpoints: the list, one of them, and holding back what waits.
//
// Pausing and skipping are asked once, with what they touch. How one is made and set up stands in `setup.js`.

import { Link, go } from "./app.js";
import { confirm, Dot, html, live } from "./html.js";
import { may } from "./api.js";
import { act, Ago, asks, Button, Facts, Needs, question, Room, Table, Waiting } from "./rooms.js";
import { create, Setup } from "./setup.js";
import { count, dur, line, plural, until, when } from "./text.js";

function State({ of }) {
  if (of.paused) return html`<span class="badge odd">paused</span>`;
  if (of.circuit === "open") return html`<span class="badge bad">handler left alone</span>`;
  if (of.secret_available === false) return html`<span class="badge bad">secret missing</span>`;
  if (!of.agents) return html`<span class="badge off">no agent</span>`;
  return null;
}

const Row = ({ of }) => html`<tr>
  <th scope="row"><${Link} to=${{ room: "endpoints", name: of.name }}>${line(of.name)}<//> <${State} of=${of} /><div class="dim mono cut">${line(of.url)}</div></th>
  <td>${line(of.provider)}</td><td class="w">${line(of.mode)}</td>
  <td class="num"><span class="at">${of.agents ? html`<${Dot} kind="ok" />` : html`<${Dot} kind="off" shape="ring" />`}${of.agents}</span></td>
  <td class="num">${of.waiting ? html`<span class="odd">${count(of.waiting)}</span>` : "0"}${of.oldest ? html`<div class="dim"><${Ago} at=${of.oldest} /></div>` : null}</td>
  <td class="num w">${of.refusals ? html`<span class="bad">${count(of.refusals)}</span>` : of.refusals === 0 ? "0" : ""}</td>
  <td class="num w">${dur(of.p50_us)}</td><td class="num w">${dur(of.p99_us)}</td><td class="num w"><${Ago} at=${of.last_event} /></td></tr>`;

const List = live((props, own) => {
  const list = own.data.value?.endpoints;
  const acts = may("create") ? html`<${Button} kind="main" onClick=${() => create(own.again)}>New endpoint<//>` : null;
  return html`<${Room} title="Endpoints" note=${list ? plural(list.length, "endpoint") : ""} acts=${acts} problem=${own.problem.value}>
    ${!list ? own.problem.value ? null : html`<${Waiting} />`
      : list.length ? html`<${Table} caption="Endpoints" columns=${[["endpoint"], ["provider"], ["mode", "w"], ["agents", "num"], ["waiting", "num"], ["refused, 1 h", "num w"], ["p50", "num w"], ["p99", "num w"], ["last event", "num w"]]}>
        ${list.map((of) => html`<${Row} key=${of.name} of=${of} />`)}<//>`
      : html`<p class="none">There is no endpoint yet. An endpoint is an address that a provider posts to.</p>${may("create") ? null : html`<${Needs} right="create" />`}`}
  <//>`;
}, (props, self) => {
  const own = question("/endpoints", { types: ["endpoints", "agents"], every_s: 10 });
  asks(self, own);
  return own;
});

async function hold(of, action, again) {
  const name = line(of.name), path = `/endpoints/${encodeURIComponent(of.name)}/${action}`;
  const asked = {
    pause: ["Pause this endpoint?", `Webhooks of ${name} are still taken and kept; none is delivered until you resume. Senders get the ack.`, "Pause"],
    skip: ["Skip what waits?", `${plural(of.waiting, "event")} of ${name} will not be delivered, by any agent. They stay in the list and can be replayed.`, `Skip ${count(of.waiting)}`],
  }[action];
  if (asked && !await confirm(...asked)) return;
  await act("POST", path, { body: {} }, { pause: `${name} is paused`, resume: `${name} delivers again`, skip: `What waited at ${name} is skipped` }[action]);
  again();
}

async function remove(of) {
  const waits = of.waiting ? ` ${plural(of.waiting, "event")} that wait will be cancelled.` : "";
  if (!await confirm("Delete this endpoint?", `Senders of ${line(of.name)} will get 404 from now on.${waits}`, "Delete")) return;
  const path = `/endpoints/${encodeURIComponent(of.name)}`;
  if (await act("DELETE", path, { query: of.waiting ? { force: true } : {} }, `${line(of.name)} is deleted`)) go({ room: "endpoints", name: "" });
}

const Acts = ({ of, again }) => html`
  ${of.mode === "live" ? null : may("act", of.name) ? of.paused
    ? html`<${Button} kind="main" onClick=${() => hold(of, "resume", again)}>Resume<//>`
    : html`<${Button} onClick=${() => hold(of, "pause", again)}>Pause…<//>` : html`<${Needs} right="act" />`}
  ${of.waiting && may("skip", of.name) ? html`<${Button} onClick=${() => hold(of, "skip", again)}>Skip what waits…<//>` : null}
  ${of.source === "api" && may("create", of.name) ? html`<${Button} onClick=${() => remove(of)}>Delete…<//>` : null}`;

/// Settings as one list of keys, each with where its value is from.
export function flat(settings, origin = {}, before = "") {
  const fromRow = new Set(Array.isArray(settings?.from_provider) ? settings.from_provider : []);
  const out = [];
  const walk = (value, path) => {
    if (value && typeof value === "object" && !Array.isArray(value)) return Object.entries(value).forEach(([key, one]) => walk(one, path ? `${path}.${key}` : key));
    out.push([path, value, origin[path] ?? (fromRow.has(path) ? "the provider's row" : "")]);
  };
  for (const [key, value] of Object.entries(settings ?? {})) if (key !== "from_provider" && key !== "name") walk(value, before + key);
  return out;
}

const shown = (value) => line(typeof value === "string" ? value : JSON.stringify(value));

const Settings = ({ of }) => html`<section class="part"><h2>Settings</h2>
  <${Table} caption="Effective settings" columns=${[["key"], ["value"], ["from", "w"]]}>
    ${flat(of.settings, of.origin).map(([key, value, from]) => html`<tr key=${key}><th scope="row" class="mono">${line(key)}</th><td class="mono wrap">${shown(value)}</td><td class="w dim">${line(from)}</td></tr>`)}<//></section>`;

const Serving = ({ of }) => html`<section class="part"><h2>Agents</h2>
  ${of.attached?.length ? html`<ul class="plain lines">${of.attached.map((one) => html`<li key=${`${one.name} ${one.token}`}><${Dot} kind=${one.standing === "active" ? "ok" : "off"} shape=${one.standing === "active" ? "" : "ring"} />
    <span>${line(one.name)}</span><span class="dim">${line(one.standing)}, token ${line(one.token)}</span></li>`)}</ul>` : html`<p class="dim">None is attached.</p>`}</section>`;

const Refusals = ({ rows, name }) => {
  if (!rows?.length) return null;
  const by = new Map();
  for (const row of rows) by.set(row.why, (by.get(row.why) ?? 0) + 1);
  return html`<section class="part"><h2>Refused in the last hour</h2><ul class="plain lines">
    ${[...by].sort((one, other) => other[1] - one[1]).map(([why, many]) => html`<li key=${why}><span class="num bad">${count(many)}</span><${Link} class="mono" to=${{ room: "events", q: `endpoint:${name} is:refused why:${why}` }}>${line(why)}<//></li>`)}</ul></section>`;
};

const One = live(({ name }, own) => {
  const of = own.of.data.value;
  const problem = own.of.problem.value;
  if (!of) return html`<${Room} title=${line(name)} problem=${problem}>${problem ? html`<p><${Link} to=${{ room: "endpoints", name: "" }}>All endpoints<//></p>` : html`<${Waiting} />`}<//>`;
  return html`<${Room} title=${line(of.name)} note=${html`<${State} of=${of} />`} acts=${html`<${Acts} of=${of} again=${own.of.again} />`} problem=${problem}>
    <${Facts} of=${[["address", line(of.url), true], ["provider", line(of.provider)], ["mode", line(of.mode)], ["made by", of.source === "api" ? "the API" : "the config file"],
      ["waiting", of.waiting ? plural(of.waiting, "event") : "nothing"], ["oldest", of.oldest ? html`<${Ago} at=${of.oldest} />` : null], ["next try", of.next_due ? until(of.next_due) : null],
      ["running", of.running || null], ["dead letters", of.dead ? html`<${Link} to=${{ room: "dead" }}>${count(of.dead)}<//>` : null], ["paused since", of.paused_since ? when(of.paused_since) : null],
      ["handler left alone until", of.circuit_until ? when(of.circuit_until) : null], ["p50", dur(of.p50_us)], ["p99", dur(of.p99_us)]]} />
    <p><${Link} to=${{ room: "events", q: `endpoint:${of.name}` }}>Events of this endpoint<//></p>
    <${Setup} name=${of.name} provider=${of.provider} />
    <${Serving} of=${of} /><${Refusals} rows=${own.refused.data.value?.events} name=${of.name} /><${Settings} of=${of} />
  <//>`;
}, ({ name }, self) => {
  const own = {
    of: question(`/endpoints/${encodeURIComponent(name)}`, { types: ["endpoints", "agents"], every_s: 10 }),
    refused: question("/events", { query: { endpoint: name, kind: "refused", since: "1h", limit: 1000 }, every_s: 30 }),
  };
  asks(self, own.of, own.refused);
  return own;
});

export default ({ route: { name } }) => name ? html`<${One} key=${name} name=${name} />` : html`<${List} />`;
