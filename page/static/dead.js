// Dead letters by cause, and work on all events of a query at once: counted, asked once, its progress shown, stoppable.

import { Link } from "./app.js";
import { Button, confirm, html, live, signal } from "./html.js";
import { call } from "./api.js";
import { act, Ago, asks, Needs, path, question, Room } from "./rooms.js";
import { count, line, plural, seen } from "./text.js";

const DOES = new Map([["revive", ["Revive", "Reviving", "revived"]], ["drop", ["Drop", "Dropping", "dropped"]], ["replay", ["Replay", "Replaying", "replayed"]], ["cancel", ["Cancel", "Cancelling", "cancelled"]]]);
const words = (action) => DOES.get(action) ?? Array(3).fill(line(action));

/// Work that this page knows of, in whatever room.
const works = signal([]);
let follows = false;

async function follow() {
  if (follows) return;
  follows = true;
  while (works.value.some((one) => !one.finished)) {
    await new Promise((next) => setTimeout(next, 300));
    works.value = await Promise.all(works.value.map((one) => one.finished ? one : call("GET", `/bulks${path(one.id)}`).catch(() => one)));
  }
  follows = false;
}

/// Counts what `q` finds, asks, and begins. Resolves to whether it began.
export async function bulk(action, q, what) {
  const body = { action, q }, [verb, , done] = words(action);
  const counted = await act("POST", "/bulk", "", { body, query: { dry_run: true } });
  if (!counted) return false;
  const many = counted.of ?? null, then = action === "drop" ? "They are not delivered any more." : "They go to whoever serves their endpoint, one after the other.";
  if (!await confirm(`${verb} all?`, `${many === null ? "Some events" : plural(many, "event")} of ${what} will be ${done}. ${then}`, `${verb} ${many === null ? "them" : count(many)}`)) return false;
  const begun = await act("POST", "/bulk", "", { body });
  if (!begun) return false;
  works.value = [begun, ...works.value].slice(0, 5);
  follow();
  return true;
}

const Work = ({ of }) => {
  const [, doing, done] = words(of.action), all = of.of ?? null;
  return html`<li class="work"><span class="grow">${of.finished ? `${plural(of.done, "event")} ${done}` : `${doing} ${count(of.done)}${all === null ? "" : ` of ${count(all)}`}`}${of.skipped ? `, ${count(of.skipped)} skipped` : ""}</span>
    <progress max=${all ?? 1} value=${of.finished ? all ?? 1 : all === null ? undefined : of.done + of.skipped} aria-label=${doing}></progress>
    ${of.finished ? html`<span class="dim">done</span>` : html`<${Button} onClick=${() => act("DELETE", `/bulks${path(of.id)}`, "It stops; what is done stays done")}>Stop<//>`}</li>`;
};

export const Works = live(() => works.value.length > 0 && html`<ul class="plain works" aria-live="polite" aria-label="Work on many events">${works.value.map((one) => html`<${Work} key=${one.id} of=${one} />`)}</ul>`);

const Group = ({ of, again }) => {
  const name = `${line(of.endpoint)}, ${line(of.why)}`;
  const all = async (action) => { if (await bulk(action, of.q, name)) again(); };
  const one = () => act("POST", `/events${path(of.newest)}/revive`, "The newest one is tried again").then(again);
  return html`<li class="group"><div class="gh"><h2><span class="dot sq bad" aria-hidden="true"></span>${of.status && html`<span class="bad">${of.status}</span> `}${line(of.endpoint)} <span class="mono dim">${line(of.why)}</span></h2>
      <span class="grow"></span><${Link} to=${{ room: "events", q: of.q }}>${plural(of.count, "event")}<//></div>
    ${of.answer ? html`<pre class="said">${seen(of.answer)}</pre>` : html`<p class="dim">The handler gave no answer.</p>`}
    <div class="gh"><span class="dim">first <${Ago} at=${of.first} />, last <${Ago} at=${of.last} /></span><span class="grow"></span>
      <${Needs} right="act" of=${of.endpoint}><span class="btns"><${Button} cls="main" aria-label=${`Revive all of ${name}`} onClick=${() => all("revive")}>Revive all<//>
        <${Button} aria-label=${`Revive one to try, of ${name}`} onClick=${one}>Revive one to try<//><${Button} aria-label=${`Drop all of ${name}`} onClick=${() => all("drop")}>Drop…<//></span><//></div></li>`;
};

export default live((props, own) => {
  const { groups = [], looked } = own.data.value ?? {};
  return html`<${Room} title="Dead letters" note=${groups.length ? `${plural(groups.reduce((all, one) => all + one.count, 0), "event")} in ${plural(groups.length, "group")}` : ""} asked=${own}><${Works} />
    ${groups.length ? html`<ul class="plain">${groups.map((of) => html`<${Group} key=${of.q + of.answer} of=${of} again=${own.again} />`)}</ul>`
      : html`<p class="none">There are none. An event comes here when its retries are used up, or when its handler says that it should not be tried again.</p>`}
    ${looked?.back_to && html`<p class="dim">Looked at ${plural(looked.rows, "event")} back to <${Ago} at=${looked.back_to} />.</p>`}<//>`;
}, (props, self) => {
  call("GET", "/bulks").then(({ bulks = [] }) => {
    works.value = [...works.value, ...bulks.filter((one) => !one.finished && !works.value.some(({ id }) => id === one.id))].slice(0, 5);
    follow();
  }, () => null);
  return asks(self, question("/dead/groups", { types: ["rows"], every_s: 5 }));
});
