// Saving events, and work on all that a query finds.
//
// What a file holds is made by the relay; the page hands it to the browser as bytes. Bulk work is counted first, shown
// while it runs, and can be stopped.

import { ask, call, has, may } from "./api.js";
import { bytesOf, download } from "./body.js";
import { Sheet, copy, html, live, openSheet, signal, toast } from "./html.js";
import { line, count, plural } from "./text.js";

const MOST = 64_000_000;

/// What a path of the API answers, as text.
export async function textOf(path) {
  return (await ask("GET", path.split("?")[0], { query: Object.fromEntries(new URLSearchParams(path.split("?")[1])), headers: { Accept: "*/*" } })).text();
}

const FORMS = [["curl", "curl for a shell", "sh", "exact; the body comes along or is fetched"], ["curl-ps", "curl for PowerShell", "ps1", "the same"], ["http", ".http file", "http", "exact; for editors"], ["har", "HAR 1.2", "har", "opens in browsers; not exact for bytes"], ["cassette", "Cassette", "jsonl", "exact; for relay-client play"]];

async function file(rows, as, ending, redact) {
  const query = { as, redact: redact ? "true" : null };
  const answer = rows.length === 1
    ? await ask("GET", `/events/${encodeURIComponent(rows[0].id)}/export`, { query, headers: { Accept: "*/*" } })
    : await ask("POST", "/events/export", { query, body: { ids: rows.map((row) => row.id) }, headers: { Accept: "*/*" } });
  const bytes = new Uint8Array(await (await answer.blob()).arrayBuffer());
  download(bytes, `${rows.length === 1 ? rows[0].id : `events-${rows.length}`}.${ending}`);
}

async function raw(row) {
  const { body, size } = await call("GET", `/events/${encodeURIComponent(row.id)}`);
  download(await bytesOf(`/events/${encodeURIComponent(row.id)}/body`, 0, MOST, body?.kept ?? size), `${row.id}.bin`);
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
    ${has("export") ? html`<label class="check"><input type="checkbox" checked=${own.redact.value} onChange=${(event) => { own.redact.value = event.currentTarget.checked; }} /> Without bodies and credentials that could be told from it (redacted)</label>` : null}
    ${has("export") && rows.length === 1 ? html`<p><button type="button" class="btn plain" onClick=${() => run(async () => copy(await textOf(`/events/${encodeURIComponent(rows[0].id)}/export?as=curl-ps`), "The command"))}>Copy for PowerShell</button></p>` : null}
    <p class="say bad" role="alert">${own.problem.value}</p><//>`;
}, () => ({ redact: signal(false), problem: signal("") }));

export function save(rows) {
  const close = openSheet(() => html`<${Save} rows=${rows} onClose=${() => close()} />`);
}

const ACTIONS = [["revive", "Revive", "act"], ["replay", "Replay", "replay"], ["cancel", "Cancel", "act"], ["drop", "Drop", "act"]];

/// Work on all that a query finds: counted, then begun, then watched.
const Many = live(({ query, onClose }, own) => {
  const { of, exact } = own.counted.value ?? {}, bulk = own.bulk.value;
  const begin = async () => {
    try {
      own.bulk.value = await call("POST", "/bulk", { body: { action: own.action.value, q: query } });
      own.watch();
    } catch (problem) {
      own.problem.value = problem.message;
    }
  };
  const stop = () => call("DELETE", `/bulks/${encodeURIComponent(bulk.id)}`).then(() => toast("Stopped"), (problem) => toast(problem.message));
  const does = ACTIONS.find(([name]) => name === own.action.value)?.[1];
  return html`<${Sheet} title="All that match" note=${line(query)} kind="small" onClose=${onClose} foot=${bulk ? html`${bulk.finished ? null : html`<button type="button" class="btn" onClick=${stop}>Stop</button>`}<button type="button" class="btn" onClick=${onClose}>Close</button>`
    : html`<button type="button" class="btn main" disabled=${!of} onClick=${begin}>${of ? `${does} ${exact ? "" : "at least "}${count(of)}` : does}</button><button type="button" class="btn" onClick=${onClose}>Cancel</button>`}>
    ${bulk ? html`<p role="status">${bulk.finished ? "Done" : "Working"}: ${count(bulk.done)}${bulk.of ? ` of ${count(bulk.of)}` : ""}${bulk.skipped ? `, ${count(bulk.skipped)} skipped` : ""}.</p><progress max=${bulk.of || 1} value=${bulk.finished ? bulk.of || 1 : bulk.done} aria-label="Progress"></progress>`
    : html`<fieldset class="opts"><legend>What is done to each</legend>${ACTIONS.filter(([, , right]) => may(right)).map(([name, label]) => html`<label key=${name}><input type="radio" name="bulk" value=${name} checked=${own.action.value === name} onChange=${() => { own.action.value = name; own.count(query); }} /> ${label}</label>`)}</fieldset>
      <p class="say">${of === undefined ? "Counting…" : of === null ? "The relay did not count." : `${exact ? "" : "At least "}${plural(of, "event")} ${of === 1 ? "matches" : "match"} now; those are worked through.`}</p>`}
    <p class="say bad" role="alert">${own.problem.value}</p><//>`;
}, ({ query }, self) => {
  const own = { action: signal("revive"), counted: signal(null), bulk: signal(null), problem: signal("") };
  let timer = null;
  own.count = async () => {
    own.counted.value = null;
    own.problem.value = "";
    try {
      const told = await call("POST", "/bulk", { query: { dry_run: "true" }, body: { action: own.action.value, q: query } });
      own.counted.value = { of: told.of, exact: true };
    } catch (problem) {
      own.problem.value = problem.message;
    }
  };
  own.watch = () => {
    timer = setInterval(async () => {
      const told = await call("GET", `/bulks/${encodeURIComponent(own.bulk.value.id)}`).catch(() => null);
      if (told) own.bulk.value = told;
      if (told?.finished) clearInterval(timer);
    }, 500);
  };
  self.mounted = () => {
    own.count();
    return () => clearInterval(timer);
  };
  return own;
});

export function many(query) {
  const close = openSheet(() => html`<${Many} query=${query} onClose=${() => close()} />`);
}
