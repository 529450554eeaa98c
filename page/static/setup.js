// How an endpoint is made, and what a person does at the provider and beside the handler to have webhooks come.

import { go } from "./app.js";
import { Button, Cmd, html, live } from "./html.js";
import { call, may } from "./api.js";
import { asks, form, Needs, Part, question, told } from "./rooms.js";
import { line, until } from "./text.js";

/// The relay's answer about one endpoint. The signature of its curl is dated by some schemes, so it is asked for again.
export function setupOf(name, self, ...others) {
  const own = question(`/endpoints/${encodeURIComponent(name)}/setup`, { every_s: 120 });
  asks(self, ...(may("create", name) ? [own] : []), ...others);
  return own;
}

/// What is pasted at the provider.
export const Paste = ({ of, url }) => of?.paste?.length ? of.paste.map((one) => html`<div class="paste" key=${one.field}><span class="dim">${line(one.field)}</span><${Cmd} text=${one.value} what=${line(one.field)} /></div>`) : html`<${Cmd} text=${url} what="The address" />`;

export const good = (of) => of.expires_at ? `Signed with the endpoint’s secret, good for ${until(of.expires_at)} more; runs as it is in a shell.` : "Runs as it is in a shell.";

export const Setup = live(({ name, provider, url }, own) => {
  const of = own.data.value;
  return html`<${Part} title="Setup"><${Needs} right="create" of=${name}>${!of ? html`<p class="dim">${own.problem.value && told(own.problem.value)}</p>` : html`
    <h3>Paste this into ${line(provider)}</h3>${of.how && html`<p class="dim">${line(of.how)}</p>`}<${Paste} of=${of} url=${url} /><h3>Start an agent beside your handler</h3><${Cmd} text=${of.agent_command} />
    ${of.curl && html`<h3>Send a signed webhook yourself</h3><p class="dim">${good(of)}</p><${Cmd} text=${of.curl} />`}`}<//><//>`;
}, ({ name }, self) => setupOf(name, self));

const MODES = [["", "as the provider needs it"], ["assured", "assured: kept, and the handler’s own answer is returned"], ["durable", "durable: kept, the sender gets the ack"], ["live", "live: passed through, nothing is kept"]];

/// Asks for what an endpoint needs and makes it; `then` runs once the sheet closes. Where no secret is given and it is
/// one's own to choose, the relay makes it and tells it this once.
export async function create(then) {
  const { providers = [] } = await call("GET", "/providers").catch(() => null) ?? {}, own = (provider) => providers.some((one) => one.name === provider && one.own_secret);
  form({
    title: "New endpoint", verb: "Create", done: "The endpoint is there", path: "/endpoints",
    fields: [{ id: "name", label: "Name", hint: "The first part of its path: a-z, 0-9, - _ and .", required: true, maxlength: 63, "data-first": true },
      { id: "provider", label: "Provider", required: true, ...(providers.length ? { options: [["", "choose"], ["none", "none: anyone may post"], ...providers.filter((one) => one.name !== "none").map((one) => [one.name, one.title])] } : { hint: "Such as github or stripe; none lets anyone in." }) },
      { id: "secret", label: "Secret", type: "password", hint: "What the provider shows. Left empty, the relay makes one where it is yours to choose." }, { id: "mode", label: "Mode", options: MODES }],
    asks: ({ name, provider, secret, mode }) => ({ body: { endpoint: { name: name.trim(), verify: provider === "none" ? "none" : { provider: provider.trim() }, ...(mode && { mode }) }, secrets: secret ? [secret] : [], generate_secret: !secret && own(provider) } }),
    shows: (of, values, close) => html`<p>Webhooks for <b>${line(of.name)}</b> come to this address.</p><${Cmd} text=${of.url} what="The address" />
      ${of.secret && html`<p>Its secret, shown this once:</p><${Cmd} text=${of.secret} what="The secret" />`}${(of.warnings ?? []).map((text) => html`<p class="odd">${line(text)}</p>`)}
      <p><${Button} onClick=${() => { close(); go({ room: "endpoints", name: of.name }); }}>Set it up<//></p>`,
  }, then);
}
