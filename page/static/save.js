// Saving events, and work on all that a query finds.
//
// What a file holds is made by the relay; the page hands it to the browser as bytes.

import { ask, call, has, may, pathOf } from "./api.js";
import { bytesOf, download } from "./body.js";
import { Sheet, copy, html, live, openSheet, signal } from "./html.js";
import { line, plural } from "./text.js";

const MOST = 64_000_000;

/// What a path of the API answers, as text.
export async function textOf(path) {
  return (await ask("GET", path.split("?")[0], { query: Object.fromEntries(new URLSearchParams(path.split("?")[1])), headers: { Accept: "*/*" } })).text();
}

const FORMS = [["curl", "curl for a shell", "sh", "exact; the body comes along or is fetched"], ["curl-ps", "curl for PowerShell", "ps1", "the same"], ["http", ".http file", "http", "exact; for editors"], ["har", "HAR 1.2", "har", "opens in browsers; not exact for bytes"], ["cassette", "Cassette", "jsonl", "exact; for relay-client play"]];

async function file(rows, as, ending, redact) {
  const query = { as, redact: redact ? "true" : null };
  const answer = rows.length === 1
    ? await ask("GET", `${pathOf(rows[0].id)}/export`, { query, headers: { Accept: "*/*" } })
    : await ask("POST", "/events/export", { query, body: { ids: rows.map((row) => row.id) }, headers: { Accept: "*/*" } });
  const bytes = new Uint8Array(await (await answer.blob()).arrayBuffer());
  download(bytes, `${rows.length === 1 ? rows[0].id : `events-${rows.length}`}.${ending}`);
}

async function raw(row) {
  const { body, size } = await call("GET", pathOf(row.id));
  download(await bytesOf(`${pathOf(row.id)}/body`, 0, MOST, body?.kept ?? size), `${row.id}.bin`);
}

const Save = live(({ rows, onClose }, own) => {
  const run = async (what) => {
    try {
      await what();
      onClose();
    } catch (problem) {
      own.problem.value = problem.message;
    }
  };
  return html`<${Sheet} title=${rows.length === 1 ? "Save" : `Save ${plural(rows.length, "event")}`} kind="small" onClose=${onClose}>
    <div class="saves">${rows.length === 1 ? html`<button type="button" class="btn" data-first onClick=${() => run(() => raw(rows[0]))}>Raw body</button><span class="dim">the bytes as they came</span>` : null}
    ${has("export") ? FORMS.filter(([as]) => rows.length === 1 || as === "har" || as === "cassette").map(([as, label, ending, note]) => html`
      <button type="button" class="btn" key=${as} onClick=${() => run(() => file(rows, as, ending, own.redact.value))}>${label}</button><span class="dim" key=${`${as}-n`}>${note}</span>`) : html`<span class="dim">This relay exports nothing else.</span>`}</div>
    ${has("export") ? html`<label class="check"><input type="checkbox" checked=${own.redact.value} onChange=${(event) => { own.redact.value = event.currentTarget.checked; }} /> Redacted: without any value that the sender wrote</label>` : null}
    ${has("export") && rows.length === 1 ? html`<p><button type="button" class="btn plain" onClick=${() => run(async () => copy(await textOf(`${pathOf(rows[0].id)}/export?as=curl-ps`), "The command"))}>Copy for PowerShell</button></p>` : null}
    <p class="say bad" role="alert">${own.problem.value}</p><//>`;
}, () => ({ redact: signal(false), problem: signal("") }));

export function save(rows) {
  const close = openSheet(() => html`<${Save} rows=${rows} onClose=${() => close()} />`);
}

/// Work on all that a query finds: what it is, then counted and asked as everywhere, then watched.
const Many = live(({ query, onClose }, own) => html`<${Sheet} title="All that match" note=${line(query)} kind="small" onClose=${onClose}>
  ${ACTIONS.filter(([, , right]) => may(right)).map(([name, label]) => html`<button type="button" class="btn" key=${name} onClick=${() => own.bulk(name, query, "what the search finds")}>${label} all…</button>`)}
  <${own.Works} /><//>`, ({ dead }) => dead);

const ACTIONS = [["revive", "Revive", "act"], ["replay", "Replay", "replay"], ["cancel", "Cancel", "act"], ["drop", "Drop", "act"]];

export async function many(query) {
  const dead = await import("./dead.js"), close = openSheet(() => html`<${Many} query=${query} dead=${dead} onClose=${() => close()} />`);
}
