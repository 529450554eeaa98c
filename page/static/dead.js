// Dead letters: groups by cause, and work on all events of a group at once.
//
// Whatever touches many events is counted first and asked once; while it runs, its progress is shown and it can be
// stopped. What has been done then stays done.

import { Link } from "./app.js";
import { confirm, html, live, signal } from "./html.js";
import { call, may } from "./api.js";
import { act, Ago, asks, Button, question, Room, Waiting } from "./rooms.js";
import { count, line, plural, seen } from "./text.js";

const DOES = new Map(Object.entries({ revive: ["Revive", "Reviving", "revived"], drop: ["Drop", "Dropping", "dropped"], replay: ["Replay", "Replaying", "replayed"], cancel: ["Cancel", "Cancelling", "cancelled"] }));
const words = (action) => DOES.get(action) ?? [line(action), line(action), line(action)];

/// Bulk work of this relay, as far as this page knows; shared, so that going to another room loses nothing.
const works = signal([]);
let follows = false;

async function follow() {
  if (follows) return;
  follows = true;
  try {
    while (works.value.some((one) => !one.finished)) {
      await new Promise((next) => setTimeout(next, 300));
      const open = works.value.filter((one) => !one.finished);
      const news = await Promise.all(open.map((one) => call("GET", `/bulks/${encodeURIComponent(one.id)}`).catch(() => null)));
      const byId = new Map(news.filter(Boolean).map((one) => [one.id, one]));
      works.value = works.value.map((one) => byId.get(one.id) ?? one);
    }
  } finally {
    follows = false;
  }
}

/// Counts what `q` finds, asks, and begins. Resolves to whether it began.
export async function bulk(action, q, what) {
  const body = { action, q };
  const counted = await act("POST", "/bulk", { query: { dry_run: true }, body });
  if (!counted) return false;
  const [verb, , done] = words(action);
  const many = counted.of === null || counted.of === undefined ? "Some events" : plural(counted.of, "event");
  const after = action === "drop" ? "They are not delivered any more." : "They are delivered again, one after the other, to whoever serves their endpoint.";
  if (!await confirm(`${verb} all?`, `${many} of ${what} will be ${done}. ${after}`, `${verb} ${counted.of ? count(counted.of) : "them"}`)) return false;
  const begun = await act("POST", "/bulk", { body });
  if (!begun) return false;
  works.value = [begun, ...works.value.filter((one) => one.id !== begun.id)].slice(0, 20);
  follow();
  return true;
}

const Work = ({ of }) => {
  const [, doing, done] = words(of.action);
  const stop = () => act("DELETE", `/bulks/${encodeURIComponent(of.id)}`, {}, "It stops; what is done stays done");
  const total = of.of ?? null, worked = of.done + of.skipped;
  return html`<li class="work">
    <span class="grow">${of.finished ? `${plural(of.done, "event")} ${done}` : `${doing} ${count(of.done)}${total === null ? "" : ` of ${count(total)}`}`}
      ${of.skipped ? html` <span class="dim">${count(of.skipped)} skipped</span>` : null}</span>
    <progress max=${total ?? 1} value=${of.finished ? total ?? 1 : total === null ? undefined : Math.min(worked, total)} aria-label=${`${doing}: progress`}></progress>
    ${of.finished ? html`<span class="dim">done</span>` : html`<${Button} onClick=${stop}>Stop<//>`}</li>`;
};

export const Works = live(() => works.value.length ? html`<section class="part" aria-label="Work under way"><ul class="plain works" aria-live="polite">
  ${works.value.slice(0, 5).map((one) => html`<${Work} key=${one.id} of=${one} />`)}</ul></section>` : null);

const Group = ({ of, again }) => {
  const name = `${line(of.endpoint)}, ${line(of.why)}`;
  const many = async (action) => { if (await bulk(action, of.q, name)) setTimeout(again, 500); };
  const one = async () => {
    await act("POST", `/events/${encodeURIComponent(of.newest)}/revive`, { body: {} }, "The newest one is tried again");
    again();
  };
  return html`<li class="group">
    <div class="gh"><h2><span class="dot sq bad" aria-hidden="true"></span>${of.status ? html`<span class="bad">${of.status}</span> ` : null}${line(of.endpoint)} <span class="mono why">${line(of.why)}</span></h2>
      <span class="grow"></span><${Link} to=${{ room: "events", q: of.q }}>${plural(of.count, "event")}<//></div>
    ${of.answer ? html`<pre class="said">${seen(of.answer)}</pre>` : html`<p class="dim">The handler gave no answer.</p>`}
    <div class="gf"><span class="dim">first <${Ago} at=${of.first} />, last <${Ago} at=${of.last} /></span><span class="grow"></span>
      ${may("act", of.endpoint) ? html`<${Button} kind="main" label=${`Revive all of ${name}`} onClick=${() => many("revive")}>Revive all<//>
        <${Button} label=${`Revive one to try, of ${name}`} onClick=${one}>Revive one to try<//>
        <${Button} label=${`Drop all of ${name}`} onClick=${() => many("drop")}>Drop…<//>` : html`<span class="dim">needs the right <code>act</code></span>`}
    </div></li>`;
};

export default live((props, own) => {
  const list = own.data.value, groups = list?.groups ?? [];
  const all = groups.reduce((sum, one) => sum + one.count, 0);
  const note = list ? groups.length ? `${plural(all, "event")} in ${plural(groups.length, "group")}` : "" : "";
  return html`<${Room} title="Dead letters" note=${note} problem=${own.problem.value}>
    <${Works} />
    ${!list ? own.problem.value ? null : html`<${Waiting} />`
      : groups.length ? html`<ul class="plain groups">${groups.map((of) => html`<${Group} key=${`${of.endpoint} ${of.why} ${of.status} ${of.answer}`} of=${of} again=${own.again} />`)}</ul>`
      : html`<p class="none">There are no dead letters. An event comes here when its retries are used up, or when its handler says that it should not be tried again.</p>`}
    ${list?.looked?.back_to ? html`<p class="dim">Looked at ${plural(list.looked.rows, "event")} back to <${Ago} at=${list.looked.back_to} />.</p>` : null}
  <//>`;
}, (props, self) => {
  const own = question("/dead/groups", { types: ["rows"], every_s: 5 });
  asks(self, own);
  call("GET", "/bulks").then((list) => {
    const known = new Set(works.value.map((one) => one.id));
    works.value = [...works.value, ...(list?.bulks ?? []).filter((one) => !one.finished && !known.has(one.id))].slice(0, 20);
    follow();
  }, () => {});
  return own;
});
