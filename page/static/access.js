// Access: tokens, the open sessions of the page, and what is masked. A token's secret is shown once, when it is made.

import { Button, Cmd, html, live } from "./html.js";
import { ago, asks, form, Needs, Part, path, question, Room, sure, Table } from "./rooms.js";
import { line, plural, when } from "./text.js";

const RIGHTS = [["attach", "agents may attach with it"], ["read", "see events and endpoints"], ["replay", "deliver again to whoever serves"], ["sign", "edit, and have the relay sign"],
  ["skip", "end what waits"], ["act", "revive, drop, cancel, pause"], ["create", "make endpoints within its patterns"], ["admin", "tokens, sessions, agents, config"]];
const GRACES = [["0s", "not at all"], ["1h", "for an hour"], ["24h", "for a day"], ["168h", "for a week"]];

const shows = (of) => html`<p>The secret of <b>${line(of.name)}</b>, shown this once: the relay keeps a digest of it.</p><${Cmd} text=${of.secret} what="The secret" />
  ${of.grace_until && html`<p class="dim">The one before is good until ${when(of.grace_until)}.</p>`}`;

const create = (then) => form({
  title: "New token", verb: "Create", done: "The token is there", path: "/tokens", shows,
  fields: [{ id: "name", label: "Name", hint: "Such as the machine or the person that uses it.", required: true, maxlength: 63, "data-first": true },
    { id: "of", label: "Endpoints", hint: "Names, or patterns such as alice-*; * is all.", required: true, value: "*" }, { id: "rights", label: "Rights", checks: RIGHTS, value: ["attach", "read"] }],
  asks: ({ name, of, rights }) => ({ body: { name: name.trim(), endpoints: of.split(/[\s,]+/).filter(Boolean), rights } }),
}, then);

const rotate = (of, then) => form({
  title: `Rotate ${line(of.name)}`, verb: "Rotate", done: "The token has a new secret", path: `/tokens${path(of.name)}/rotate`, shows,
  fields: [{ id: "grace", label: "The secret of now stays good", options: GRACES, value: "24h" }], asks: ({ grace }) => ({ query: { grace }, body: {} }),
}, then);

const revoke = (of, then) => sure("Revoke this token?", `Agents and commands that use ${line(of.name)} are refused, and its sessions close within seconds.`, "Revoke", "DELETE", `/tokens${path(of.name)}`, `${line(of.name)} is revoked`).then(then);

const close = (of, then) => sure("Close this session?", of.current ? "It is the one of this page; you will be asked for a key." : "Whoever uses it will be asked for a key.", "Close", "DELETE", `/sessions${path(of.id)}`, "The session is closed").then(then);

const TOKENS = (again) => [["token", "", (of) => html`${line(of.name)}<div class="dim">${of.source === "api" ? "made by the API" : "from the config file"}</div>`],
  ["rights", "mono wrap", (of) => line(of.rights.join(" "))], ["endpoints", "w mono wrap", (of) => line(of.endpoints.join(" "))],
  ["secrets", "w", (of) => html`${plural(of.secrets, "secret")}${of.grace_until && html`<div class="dim">older ones until ${when(of.grace_until)}</div>`}`], ["last used", "num w", ago("last_used", "never")],
  ["", "num", (of) => of.source === "api" && html`<${Button} aria-label=${`Rotate ${line(of.name)}`} onClick=${() => rotate(of, again)}>Rotate…<//> <${Button} aria-label=${`Revoke ${line(of.name)}`} onClick=${() => revoke(of, again)}>Revoke…<//>`]];
const SESSIONS = (again) => [["session", "", (of) => html`${line(of.name || of.kind || of.id)}${of.current && html` <span class="badge off">this one</span>`}`], ["opened", "num w", ago("opened_at")], ["last used", "num w", ago("last_used")],
  ["ends", "num", (of) => when(of.expires_at)], ["", "num", (of) => html`<${Button} aria-label=${`Close session ${line(of.name || of.id)}`} onClick=${() => close(of, again)}>Close…<//>`]];

export default live((props, { tokens, sessions }) => {
  const list = tokens.data.value?.tokens ?? [], open = sessions.data.value?.sessions ?? [];
  return html`<${Room} title="Access" asked=${tokens} acts=${html`<${Needs} right="admin"><${Button} cls="main" onClick=${() => create(tokens.again)}>New token<//><//>`}>
    ${list.length ? html`<${Table} cap="Tokens" k="name" of=${list} cols=${TOKENS(tokens.again)} />` : html`<p class="none">There is no token, so no agent can attach.</p>`}
    ${open.length > 0 && html`<${Part} title="Sessions of this page"><${Table} cap="Sessions" k="id" of=${open} cols=${SESSIONS(sessions.again)} /><//>`}
    <${Part} title="What is masked"><p class="say">Tokens, passwords and cookies are masked before an event is shown, exported or put into the journal. Signing secrets never leave the relay. <code>mask_headers</code> and <code>mask_json</code> of <code>[inspect]</code> in the config file mask more.</p><//><//>`;
}, (props, self) => {
  const own = { tokens: question("/tokens"), sessions: question("/sessions") };
  asks(self, own.tokens, own.sessions);
  return own;
});
