// Access: tokens, the open sessions of the page, and what is masked.
//
// A token's secret is shown once, when it is made or rotated. Everything here is the relay's; a token that its config
// file names is changed there.

import { Cmd, confirm, html, live, openSheet, Sheet, signal } from "./html.js";
import { call, may } from "./api.js";
import { act, Ago, asks, Button, Field, Needs, question, Room, Table, told, Waiting } from "./rooms.js";
import { line, plural, when } from "./text.js";

const RIGHTS = [["attach", "agents may attach with it"], ["read", "see events and endpoints"], ["replay", "deliver again to whoever serves"], ["sign", "edit, and have the relay sign"],
  ["skip", "end what waits"], ["act", "revive, drop, cancel, pause"], ["create", "make endpoints within its patterns"], ["admin", "tokens, sessions, agents, config"]];
const words = (text) => text.split(/[\s,]+/).filter(Boolean);

class Form {
  constructor() {
    this.name = signal("");
    this.endpoints = signal("*");
    this.rights = signal(new Set(["attach", "read"]));
    this.made = signal(null);
    this.problem = signal(null);
    this.busy = signal(false);
  }
  async send(event) {
    event?.preventDefault();
    if (this.busy.value) return;
    this.busy.value = true;
    this.problem.value = null;
    try {
      this.made.value = await call("POST", "/tokens", { body: { name: this.name.value.trim(), endpoints: words(this.endpoints.value), rights: [...this.rights.value] } });
    } catch (problem) {
      this.problem.value = problem;
    } finally {
      this.busy.value = false;
    }
  }
  pick(right, on) {
    const next = new Set(this.rights.value);
    if (on) next.add(right);
    else next.delete(right);
    this.rights.value = next;
  }
}

const Fields = live(({ form }) => html`<form class="form" id="new-token" onSubmit=${(event) => form.send(event)}>
  <${Field} id="tn" label="Name" hint="Such as the machine or the person that uses it."><input id="tn" data-first required maxlength="63" autocomplete="off" spellcheck="false" aria-describedby="tn-hint" value=${form.name.value} onInput=${(event) => { form.name.value = event.target.value; }} /><//>
  <${Field} id="te" label="Endpoints" hint="Names, or patterns such as alice-*; * is all."><input id="te" class="mono" required autocomplete="off" spellcheck="false" aria-describedby="te-hint" value=${form.endpoints.value} onInput=${(event) => { form.endpoints.value = event.target.value; }} /><//>
  <fieldset><legend>Rights</legend>${RIGHTS.map(([right, says]) => html`<label key=${right} class="check"><input type="checkbox" checked=${form.rights.value.has(right)} onChange=${(event) => form.pick(right, event.target.checked)} /><code>${right}</code> <span class="dim">${says}</span></label>`)}</fieldset>
  ${form.problem.value ? html`<p class="trouble" role="alert">${told(form.problem.value)}</p>` : null}</form>`);

const Secret = ({ of }) => html`<p>This is the secret of <b>${line(of.name)}</b>. It is shown this once; the relay keeps a digest of it.</p><${Cmd} text=${of.secret} what="The secret" />
  ${of.grace_until ? html`<p class="dim">The one before is good until ${when(of.grace_until)}.</p>` : null}`;

const New = live(({ form, close }) => form.made.value
  ? html`<${Sheet} title="The token is there" fixed=${true} foot=${html`<${Button} kind="main" onClick=${close}>I have it<//>`}><${Secret} of=${form.made.value} /><//>`
  : html`<${Sheet} title="New token" onClose=${close} foot=${html`<button type="submit" form="new-token" class="btn main" disabled=${form.busy.value}>Create</button><${Button} onClick=${close}>Cancel<//>`}><${Fields} form=${form} /><//>`);

function create(done) {
  const form = new Form();
  const end = openSheet(() => html`<${New} form=${form} close=${() => { end(); done(); }} />`);
}

const GRACES = [["0s", "at once"], ["1h", "for an hour"], ["24h", "for a day"], ["168h", "for a week"]];

const Rotate = live(({ of, own, close }) => own.made.value
  ? html`<${Sheet} title="The token has a new secret" fixed=${true} foot=${html`<${Button} kind="main" onClick=${close}>I have it<//>`}><${Secret} of=${own.made.value} /><//>`
  : html`<${Sheet} title=${`Rotate ${line(of.name)}`} onClose=${close} foot=${html`<${Button} kind="main" onClick=${own.send}>Rotate<//><${Button} onClick=${close}>Cancel<//>`}>
    <${Field} id="rg" label="The secret of now stays good"><select id="rg" data-first value=${own.grace.value} onChange=${(event) => { own.grace.value = event.target.value; }}>${GRACES.map(([value, text]) => html`<option key=${value} value=${value}>${text}</option>`)}</select><//><//>`,
({ of }) => {
  const own = { grace: signal("24h"), made: signal(null) };
  own.send = async () => {
    const made = await act("POST", `/tokens/${encodeURIComponent(of.name)}/rotate`, { query: { grace: own.grace.value }, body: {} });
    if (made) own.made.value = made;
  };
  return own;
});

function rotate(of, done) {
  const end = openSheet(() => html`<${Rotate} of=${of} close=${() => { end(); done(); }} />`);
}

async function revoke(of, done) {
  const text = `Agents and commands that use ${line(of.name)} are refused from now on, and its sessions are closed within seconds.`;
  if (!await confirm("Revoke this token?", text, "Revoke")) return;
  await act("DELETE", `/tokens/${encodeURIComponent(of.name)}`, {}, `${line(of.name)} is revoked`);
  done();
}

const Tokens = ({ list, again }) => html`<${Table} caption="Tokens" columns=${[["token"], ["rights"], ["endpoints", "w"], ["secrets", "w"], ["last used", "num w"], [""]]}>
  ${list.map((of) => html`<tr key=${of.name}><th scope="row">${line(of.name)}<div class="dim">${of.source === "api" ? "made by the API" : "from the config file"}</div></th>
    <td class="mono wrap">${of.rights.map(line).join(" ")}</td><td class="w mono wrap">${of.endpoints.map(line).join(" ")}</td>
    <td class="w">${plural(of.secrets, "secret")}${of.grace_until ? html`<div class="dim">older ones until ${when(of.grace_until)}</div>` : null}</td>
    <td class="num w">${of.last_used ? html`<${Ago} at=${of.last_used} />` : "never"}</td>
    <td class="num">${of.source === "api" ? html`<span class="acts-in"><${Button} label=${`Rotate ${line(of.name)}`} onClick=${() => rotate(of, again)}>Rotate…<//>
      <${Button} label=${`Revoke ${line(of.name)}`} onClick=${() => revoke(of, again)}>Revoke…<//></span>` : null}</td></tr>`)}<//>`;

async function close(of, done) {
  const text = of.current ? "This is the session of this page. You will be asked for a key." : "Whoever uses it will be asked for a key.";
  if (!await confirm("Close this session?", text, "Close")) return;
  await act("DELETE", `/sessions/${encodeURIComponent(of.id)}`, {}, "The session is closed");
  done();
}

const Sessions = ({ list, again }) => html`<section class="part"><h2>Sessions of this page</h2>
  ${list?.length ? html`<${Table} caption="Sessions of this page" columns=${[["session"], ["opened", "num w"], ["last used", "num w"], ["ends", "num"], [""]]}>
    ${list.map((of) => html`<tr key=${of.id}><th scope="row">${line(of.name || of.kind || of.id)}${of.current ? html` <span class="badge off">this one</span>` : null}</th>
      <td class="num w"><${Ago} at=${of.opened_at ?? of.created_at} /></td><td class="num w"><${Ago} at=${of.last_used} /></td><td class="num">${when(of.expires_at)}</td>
      <td class="num"><${Button} label=${`Close session ${line(of.name || of.id)}`} onClick=${() => close(of, again)}>Close…<//></td></tr>`)}<//>` : html`<p class="dim">None is open.</p>`}</section>`;

const Masked = () => html`<section class="part"><h2>What is masked</h2><p class="prose">Tokens, passwords and cookies in headers and addresses are masked before an event is shown, exported or put into the journal; each masked header says so.
  Signing secrets never leave the relay. <code>mask_headers</code> and <code>mask_json</code> of <code>[inspect]</code> in the config file mask more.</p></section>`;

export default live((props, own) => {
  const tokens = own.tokens.data.value?.tokens, admin = may("admin");
  const acts = admin ? html`<${Button} kind="main" onClick=${() => create(own.tokens.again)}>New token<//>` : null;
  return html`<${Room} title="Access" acts=${acts} problem=${own.tokens.problem.value ?? own.sessions.problem.value}>
    ${!admin ? html`<${Needs} right="admin" />` : html`
      ${!tokens ? own.tokens.problem.value ? null : html`<${Waiting} />` : tokens.length ? html`<${Tokens} list=${tokens} again=${own.tokens.again} />` : html`<p class="none">There is no token: no agent can attach.</p>`}
      <${Sessions} list=${own.sessions.data.value?.sessions} again=${own.sessions.again} />`}
    <${Masked} />
  <//>`;
}, (props, self) => {
  const own = { tokens: question("/tokens", { every_s: 15 }), sessions: question("/sessions", { every_s: 15 }) };
  if (may("admin")) asks(self, own.tokens, own.sessions);
  return own;
});
