// How an endpoint is made, and what a person does at the provider and beside the handler to have webhooks come.
//
// A secret goes to the relay and never comes back, but for one that it made itself: that is shown once.

import { go } from "./app.js";
import { Cmd, html, live, openSheet, Sheet, signal, toast } from "./html.js";
import { call, may } from "./api.js";
import { asks, Button, Field, Needs, question, told } from "./rooms.js";
import { line, until } from "./text.js";

/// The panel: address, the provider's own fields, the agent's command, a signed request.
export const Setup = live(({ name, provider }, own) => {
  if (!may("create", name)) return html`<section class="part"><h2>Setup</h2><${Needs} right="create" /></section>`;
  const of = own.data.value;
  if (!of) return own.problem.value ? html`<section class="part"><h2>Setup</h2><p class="dim">${told(own.problem.value)}</p></section>` : null;
  return html`<section class="part setup"><h2>Setup</h2>
    <h3>Paste this into ${line(provider)}</h3>
    ${of.paste?.length ? of.paste.map((one) => html`<div class="paste" key=${one.field}><span class="dim">${line(one.field)}</span><${Cmd} text=${one.value} what=${line(one.field)} /></div>`)
      : html`<${Cmd} text=${of.url} what="The address" />`}
    <h3>Start an agent beside your handler</h3><${Cmd} text=${of.agent_command} />
    ${of.curl ? html`<h3>Send a signed webhook yourself</h3><${Cmd} text=${of.curl} />
      ${of.expires_at ? html`<p class="dim">Its signature is good for ${until(of.expires_at)} more; it is made anew before that.</p>` : null}` : null}
  </section>`;
}, ({ name }, self) => {
  const own = question(`/endpoints/${encodeURIComponent(name)}/setup`, { every_s: 120 });
  if (may("create", name)) asks(self, own);
  return own;
});

const MODES = [["", "as the provider needs it"], ["assured", "assured: kept, and the handler's own answer is returned"], ["durable", "durable: kept, the sender gets the ack"], ["live", "live: passed through, nothing is kept"]];

/// 32 random bytes as text.
function random() {
  const bytes = crypto.getRandomValues(new Uint8Array(32));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

class Form {
  constructor() {
    this.name = signal("");
    this.provider = signal("");
    this.mode = signal("");
    this.secret = signal("");
    this.made = signal(null);
    this.problem = signal(null);
    this.busy = signal(false);
    this.providers = signal([]);
    this.own = signal(false);
    call("GET", "/providers").then((list) => { this.providers.value = list?.providers ?? []; }, () => {});
  }
  row() {
    const row = { name: this.name.value.trim(), verify: this.provider.value.trim() === "none" ? "none" : { provider: this.provider.value.trim() } };
    if (this.mode.value) row.mode = this.mode.value;
    return row;
  }
  async send(event) {
    event?.preventDefault();
    if (this.busy.value) return;
    this.busy.value = true;
    this.problem.value = null;
    const secrets = this.secret.value && this.row().verify !== "none" ? [this.secret.value] : [];
    try {
      this.made.value = await call("POST", "/endpoints", { body: { endpoint: this.row(), secrets } });
      toast(`${line(this.made.value.name)} is made`);
    } catch (problem) {
      this.problem.value = problem;
    } finally {
      this.busy.value = false;
    }
  }
}

const Fields = live(({ form }) => html`<form class="form" id="new-endpoint" onSubmit=${(event) => form.send(event)}>
  <${Field} id="en" label="Name" hint="The first part of its path: a-z, 0-9, - _ and ."><input id="en" data-first required maxlength="63" pattern="[a-z0-9][a-z0-9._\\-]*" autocomplete="off" spellcheck="false" aria-describedby="en-hint"
    value=${form.name.value} onInput=${(event) => { form.name.value = event.target.value; }} /><//>
  <${Field} id="ep" label="Provider" hint="Such as github or stripe; none lets anyone in."><input id="ep" required list="providers" autocomplete="off" spellcheck="false" aria-describedby="ep-hint"
    value=${form.provider.value} onInput=${(event) => { form.provider.value = event.target.value; }} />
    <datalist id="providers">${form.providers.value.map((one) => html`<option key=${one.name} value=${one.name}>${line(one.title)}</option>`)}</datalist><//>
  ${form.provider.value.trim() === "none" ? null : html`<${Field} id="es" label="Secret" hint=${form.own.value ? "Made here. Copy it to the provider now: the relay seals it and shows it never again." : "What the provider shows, or one that you make here and paste there. The relay seals it."}>
    <div class="row"><input id="es" class="mono" type=${form.own.value ? "text" : "password"} autocomplete="off" spellcheck="false" aria-describedby="es-hint" value=${form.secret.value} onInput=${(event) => { form.secret.value = event.target.value; form.own.value = false; }} />
    <${Button} onClick=${() => { form.secret.value = random(); form.own.value = true; }}>Make one<//></div><//>`}
  <${Field} id="em" label="Mode"><select id="em" value=${form.mode.value} onChange=${(event) => { form.mode.value = event.target.value; }}>${MODES.map(([value, text]) => html`<option key=${value} value=${value}>${text}</option>`)}</select><//>
  ${form.problem.value ? html`<p class="trouble" role="alert">${told(form.problem.value)}</p>` : null}
</form>`);

const Made = ({ form, close }) => {
  const of = form.made.value;
  return html`<p>Webhooks for <b>${line(of.name)}</b> come to this address.</p><${Cmd} text=${of.url} what="The address" />
    ${form.own.value ? html`<h2>Its secret, shown this once</h2><${Cmd} text=${form.secret.value} what="The secret" />` : null}
    ${(of.warnings ?? []).map((text) => html`<p class="odd">${line(text)}</p>`)}
    <p><${Button} onClick=${() => { close(); go({ room: "endpoints", name: of.name }); }}>Set it up<//></p>`;
};

const New = live(({ form, close }) => form.made.value
  ? html`<${Sheet} title="The endpoint is there" onClose=${close} foot=${html`<${Button} kind="main" onClick=${close}>Done<//>`}><${Made} form=${form} close=${close} /><//>`
  : html`<${Sheet} title="New endpoint" onClose=${close} foot=${html`<button type="submit" form="new-endpoint" class="btn main" disabled=${form.busy.value}>Create</button><${Button} onClick=${close}>Cancel<//>`}><${Fields} form=${form} /><//>`);

/// Asks for what an endpoint needs and makes it; `done` runs once the sheet closes.
export function create(done) {
  const form = new Form();
  const end = openSheet(() => html`<${New} form=${form} close=${() => { end(); done?.(); }} />`);
}
