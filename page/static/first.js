// The first run: three steps, with commands that run as they are, where the list will be once something came.

import { Cmd, Dot, html, live, signal } from "./html.js";
import { about } from "./api.js";
import { New } from "./endpoints.js";
import { asks, Needs, question, told, Trouble } from "./rooms.js";
import { good, Paste, setupOf } from "./setup.js";
import { line, plural } from "./text.js";

const Step = ({ no, title, says, children }) => html`<li><span class="nth" aria-hidden="true">${no}</span><div><h2>${title}</h2>${says && html`<p class="dim">${says}</p>`}${children}</div></li>`;
const Wait = ({ ok = false, children }) => html`<p class="wait" role="status"><${Dot} on=${ok} />${children}</p>`;

const Steps = live(({ of }, own) => {
  const setup = own.setup.data.value, serving = (own.agents.data.value?.agents ?? []).filter((agent) => agent.endpoints.some((one) => one.name === of.name)).map((agent) => line(agent.name));
  return html`<ol class="steps">
    <${Step} no="1" title="Start an agent beside your handler" says="It opens the connection; no port is opened on your side."><${Cmd} text=${setup?.agent_command ?? `relay-client listen 3000 ${of.name} --relay ${about.value?.relay?.public_url ?? "URL"}`} />
      <${Wait} ok=${serving.length > 0}>${serving.length ? `${serving.join(", ")} ${serving.length > 1 ? "are" : "is"} attached` : "Waiting for an agent…"}<//><//>
    <${Step} no="2" title=${of.provider === "none" ? "Send a webhook yourself" : "Send a signed webhook yourself"} says=${setup?.curl ? good(setup) : own.setup.problem.value && told(own.setup.problem.value)}><${Needs} right="create" of=${of.name}>${setup?.curl && html`<${Cmd} text=${setup.curl} />`}<//><${Wait}>Waiting for the first request…<//><//>
    <${Step} no="3" title=${of.provider === "none" ? "Give this address to the sender" : `Paste this into ${line(of.provider)}`} says=${setup?.how && line(setup.how)}><${Paste} of=${setup} url=${of.url} /><//></ol>`;
}, ({ of }, self) => {
  const agents = question("/agents", { types: ["agents"], every_s: 5 });
  return { agents, setup: setupOf(of.name, self, agents) };
});

export const First = live((props, own) => {
  const list = own.data.value?.endpoints, of = list?.find((one) => one.name === own.chosen.value) ?? list?.[0];
  if (!list) return html`<div class="first"><${Trouble} of=${own.problem.value} /></div>`;
  return html`<div class="first"><h1>Nothing has come yet</h1>${!of ? html`<p>This relay has no endpoint yet: an address that a provider posts to.</p><${New} then=${own.again} />`
    : html`<p>This relay has ${list.length > 1 ? plural(list.length, "endpoint") : `one endpoint, ${line(of.name)},`} and waits at the address below. The list fills by itself as soon as something comes, refused requests included.</p>
      ${list.length > 1 && html`<p><label>Steps for <select value=${of.name} onChange=${(event) => { own.chosen.value = event.target.value; }}>${list.map((one) => html`<option key=${one.name} value=${one.name}>${line(one.name)}</option>`)}</select></label></p>`}
      <${Steps} key=${of.name} of=${of} />`}</div>`;
}, (props, self) => {
  return Object.assign(asks(self, question("/endpoints", { types: ["endpoints"] })), { chosen: signal("") });
});
