// Saving events, and work on all that a query finds.
//
// What a file holds is made by the relay; the page hands it to the browser as bytes.

import { ask, call, has, may, pathOf } from "./api.js";
import { bytesOf, download } from "./body.js";
import { Button, Sheet, copy, html, live, openSheet, signal } from "./html.js";
import { line, plural } from "./text.js";

const MOST = 64_000_000, ANY = { Accept: "*/*" };

/// An event in a form of text.
export const exported = async (id, as) => (await ask("GET", `${pathOf(id)}/export`, { query: { as }, headers: ANY })).text();

const FORMS = [["curl", "curl for a shell", "sh", "exact; the body comes along or is fetched"], ["curl-ps", "curl for PowerShell", "ps1", "the same"], ["http", ".http file", "http", "exact; for editors"], ["har", "HAR 1.2", "har", "opens in browsers; not exact for bytes"], ["cassette", "Cassette", "jsonl", "exact; for relay-client play"]];

async function file(rows, as, ending, redact) {
  const query = { as, redact: redact ? "true" : null };
  const answer = rows.length === 1
    ? await ask("GET", `${pathOf(rows[0].id)}/export`, { query, headers: ANY })
    : await ask("POST", "/events/export", { query, body: { ids: rows.map((row) => row.id) }, headers: ANY });
  download(await answer.blob(), `${rows.length === 1 ? rows[0].id : `events-${rows.length}`}.${ending}`);
}

async function raw(row) {
  const { body, size } = await call("GET", pathOf(row.id));
  download(await bytesOf(`${pathOf(row.id)}/body`, 0, MOST, body?.kept ?? size), `${row.id}.bin`);
}

const Save = live(({ rows, onClose }, own) => {
  const isOne = rows.length === 1;
  const run = (what) => () => what().then(onClose, (problem) => { own.problem.value = problem.message; });
  const button = ([label, note, what]) => html`<${Button} key=${label} onClick=${run(what)}>${label}<//><span class="dim">${note}</span>`;
  return html`<${Sheet} title=${isOne ? "Save" : `Save ${plural(rows.length, "event")}`} kind="small" onClose=${onClose}>
    <div class="saves">${isOne && button(["Raw body", "the bytes as they came", () => raw(rows[0])])}
    ${has("export") ? FORMS.filter(([as]) => isOne || as === "har" || as === "cassette").map(([as, label, ending, note]) => button([label, note, () => file(rows, as, ending, own.redact.value)]))
      : html`<span class="dim">This relay exports nothing else.</span>`}</div>
    ${has("export") && html`<label class="check"><input type="checkbox" checked=${own.redact.value} onChange=${(event) => { own.redact.value = event.currentTarget.checked; }} /> Redacted: without any value that the sender wrote</label>
      ${isOne && html`<p><${Button} cls="plain" onClick=${run(async () => copy(await exported(rows[0].id, "curl-ps"), "The command"))}>Copy for PowerShell<//></p>`}`}
    <p class="say bad" role="alert">${own.problem.value}</p><//>`;
}, () => ({ redact: signal(false), problem: signal("") }));

export const save = (rows) => openSheet(Save, { rows });

/// Work on all that a query finds: what it is, then counted and asked as everywhere, then watched.
const Many = live(({ query, onClose }, own) => html`<${Sheet} title="All that match" note=${line(query)} kind="small" onClose=${onClose}>
  ${ACTIONS.filter(([, , right]) => may(right)).map(([name, label]) => html`<${Button} key=${name} onClick=${() => own.bulk(name, query, "what the search finds")}>${label} all…<//>`)}
  <${own.Works} /><//>`, ({ dead }) => dead);

const ACTIONS = [["revive", "Revive", "act"], ["replay", "Replay", "replay"], ["cancel", "Cancel", "act"], ["drop", "Drop", "act"]];

export const many = async (query) => openSheet(Many, { query, dead: await import("./dead.js") });
