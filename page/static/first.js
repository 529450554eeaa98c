// The first run: what stands where the list will be, until something came.
//
// Three steps, each with a command that runs as it is. The relay makes them (`setup`); here is only how they are shown.

import { Cmd, Dot, html, live, signal } from "./html.js";
import { about, may } from "./api.js";
import { asks, Button, Needs, question, told } from "./rooms.js";
import { create } from "./setup.js";
import { line, plural, until } from "./text.js";

const Step = ({ no, title, says, children }) => html`<li><span class="no" aria-hidden="true">${no}</span>
  <div><h2>${title}</h2>${says ? html`<p class="dim">${says}</p>` : null}${children}</div></li>`;

const Wait = ({ ok, children }) => html`<p class="wait" role="status"><${Dot} kind=${ok ? "ok" : "off"} shape=${ok ? "" : "ring"} />${children}</p>`;

/// The three steps for one endpoint. With a `key` it is made anew for another.
const Steps = live(({ of, agents }, own) => {
  const setup = own.data.value;
  const serving = agents.filter((agent) => agent.endpoints?.some((one) => one.name === of.name)).map((agent) => line(agent.name));
  const command = setup?.agent_command ?? `relay-client listen 3000 ${of.name} --relay ${about.value?.relay?.public_url ?? "URL"}`;
  return html`<ol class="steps">
    <${Step} no="1" title="Start an agent beside your handler" says="It opens the connection; no port is opened on your side.">
      <${Cmd} text=${command} />
      ${serving.length ? html`<${Wait} ok=${true}>${serving.join(", ")} ${serving.length === 1 ? "is" : "are"} attached<//>` : html`<${Wait}>Waiting for an agent…<//>`}<//>
    ${setup?.curl ? html`<${Step} no="2" title="Send a signed webhook yourself" says=${setup.expires_at ? `Signed with the endpoint’s secret, good for ${until(setup.expires_at)} more; runs as it is in a shell.` : "Signed with the endpoint’s secret; runs as it is in a shell."}>
      <${Cmd} text=${setup.curl} /><${Wait}>Waiting for the first request…<//><//>`
      : html`<${Step} no="2" title="Send a webhook" says=${own.problem.value ? told(own.problem.value) : ""}>
        ${may("create", of.name) ? null : html`<${Needs} right="create" />`}<${Wait}>Waiting for the first request…<//><//>`}
    <${Step} no="3" title=${of.provider === "none" ? "Give this address to the sender" : `Paste this into ${line(of.provider)}`}>
      ${setup?.paste?.length ? setup.paste.map((one) => html`<div class="paste" key=${one.field}><span class="dim">${line(one.field)}</span><${Cmd} text=${one.value} what=${line(one.field)} /></div>`)
        : html`<${Cmd} text=${of.url} what="The address" />`}<//>
  </ol>`;
}, ({ of }, self) => {
  // The signature of the curl is dated by some schemes, for five minutes.
  const own = question(`/endpoints/${encodeURIComponent(of.name)}/setup`, { every_s: 120 });
  if (may("create", of.name)) asks(self, own);
  return own;
});

export const First = live((props, own) => {
  const list = own.endpoints.data.value?.endpoints;
  const problem = own.endpoints.problem.value;
  if (!list) return html`<div class="room first"><div class="room-in">${problem ? html`<p class="trouble" role="status">${told(problem)}</p>` : null}</div></div>`;
  const of = list.find((one) => one.name === own.chosen.value) ?? list[0];
  const many = list.length > 1;
  return html`<div class="room first"><div class="room-in"><h1>Nothing has come yet</h1>
    ${!of ? html`<p>This relay has no endpoint yet: an address that a provider posts to.</p>
        ${may("create") ? html`<p><${Button} kind="main" onClick=${() => create(own.endpoints.again)}>New endpoint<//></p>` : html`<${Needs} right="create" />`}`
      : html`<p>This relay has ${many ? plural(list.length, "endpoint") : html`one endpoint, ${line(of.name)},`} and waits at the address${many ? "es" : ""} below. The list fills by itself as soon as something comes, refused requests included.</p>
        ${many ? html`<p class="pick"><label for="first-of">Steps for</label> <select id="first-of" value=${of.name} onChange=${(event) => { own.chosen.value = event.target.value; }}>
          ${list.map((one) => html`<option key=${one.name} value=${one.name}>${line(one.name)}</option>`)}</select></p>` : null}
        <${Steps} key=${of.name} of=${of} agents=${own.agents.data.value?.agents ?? []} />`}
  </div></div>`;
}, (props, self) => {
  const own = {
    endpoints: question("/endpoints", { types: ["endpoints"] }),
    agents: question("/agents", { types: ["agents"], every_s: 5 }),
    chosen: signal(""),
  };
  asks(self, own.endpoints, own.agents);
  return own;
});
