// The events: search, the last hour, the list, and the event that is open beside it.
//
// What is shown stands in the address: the query, the view, the open event. This room joins the parts and binds the keys;
// rows come from `feed.js`, what is done to events stands in `acts.js`.

import { isKnown, may } from "./api.js";
import { foot, go, route } from "./app.js";
import { VIEWS, apart, around, arrivals, eye, find, isQueryMistake, leftOut, live as isLive, loadLeftOut, more, newest, next, setLive, shown, state, version } from "./feed.js";
import { Hour } from "./hour.js";
import { Button, Icon, computed, effect, h, html, lazy, live, signal } from "./html.js";
import { bind } from "./keys.js";
import { failureFrom, mountList, pillText } from "./list.js";
import { FORMS, TABS } from "./route.js";
import { Search } from "./search.js";
import { count, plural, when } from "./text.js";

const Detail = lazy(() => import("./event.js"), "Detail", (props) => html`<${Nothing} ...${props} busy />`), First = lazy(() => import("./first.js"), "First");
/// Does something to events; what it takes for that is fetched when it is first asked for.
const act = async (name, ...rest) => (await import("./acts.js")).acts[name](...rest);
const marked = new Set(), marks = signal(0);
const rowsOf = (ids) => [...ids].map((id) => shown.rows.row(id) ?? { id });
/// Finds what the address asks for. The first rows come while the relay is asked who this is.
const look = () => {
  const { q, view } = route.value;
  find([VIEWS[view] ?? "", q].filter(Boolean).join(" "));
};
if (isKnown()) look();
const isNarrow = () => matchMedia("(max-width:860px)").matches;
const WIDTH = "relay.split";

function room(self) {
  let list = null, search = null, rangeFrom = "", detail = null, refocus = false;
  const selected = () => route.value.e, row = () => shown.rows.row(selected());
  const pick = (one, { replace = true } = {}) => {
    if (!one) return;
    rangeFrom = "";
    go({ e: one.id, at: "" }, { replace });
    list?.reveal(one.id);
  };
  const into = (one) => {
    if (!one) return;
    pick(one, { replace: one.id === selected() && !isNarrow() });
    self.open.value = true;
    requestAnimationFrame(() => detail?.focus());
  };
  const back = () => {
    self.open.value = false;
    list?.el.focus();
  };
  const near = (at) => shown.rows.at(Math.min(shown.rows.length - 1, Math.max(0, at)));
  const here = () => (selected() ? shown.rows.indexOf(selected()) : -1);
  const move = (by) => pick(near(here() + (row() ? by : 0)));
  const recount = () => {
    marks.value = marked.size;
    list?.ask();
  };
  const mark = (one, range) => {
    if (!one) return;
    const { rows } = shown;
    if (range) {
      const from = rangeFrom || selected() || one.id, [low, high] = [rows.indexOf(from), rows.indexOf(one.id)].sort((a, b) => a - b);
      for (let i = low; i <= high && marked.size < 1000; i++) marked.add(rows.at(i).id);
      pick(one);
      rangeFrom = from;
    } else if (!marked.delete(one.id)) marked.add(one.id);
    recount();
  };
  const unmark = () => {
    marked.clear();
    recount();
  };
  const toTop = () => {
    newest();
    list.toTop();
  };
  const setQuery = (q, typing) => go({ q }, { replace: typing });
  const setView = (view) => go({ view: view === "all" ? "" : view });
  const failure = (step) => () => pick(shown.rows.at(failureFrom(shown.rows, here(), step)));
  const does = (name) => () => {
    if (marked.size && ["replay", "compare"].includes(name)) return act(name, rowsOf(marked));
    return selected() ? act(name, rowsOf([selected()])) : false;
  };
  const turn = (key, values) => () => {
    const now = values.indexOf(route.value[key] || values[0]);
    go({ [key]: values[(now + 1) % values.length] }, { replace: true });
  };
  const onList = (act) => (event) => (event.target.closest(".detail") ? false : act());
  const by = (step) => onList(() => move(step()));
  const keys = {
    j: () => move(1), k: () => move(-1), ArrowDown: by(() => 1), ArrowUp: by(() => -1), PageDown: by(() => list.page()), PageUp: by(() => -list.page()), Home: by(() => -1e9), End: by(() => 1e9),
    "g g": () => { newest(); move(-1e9); }, G: () => move(1e9), n: failure(1), N: failure(-1),
    J: () => mark(near(here() + 1), true), K: () => mark(near(here() - 1), true),
    Enter: () => into(row() ?? shown.rows.at(0)),
    Escape: () => {
      if (self.open.value || detail?.contains(document.activeElement)) back();
      else if (marked.size) unmark();
      else if (route.value.q || route.value.view) go({ q: "", view: "" });
      else return false;
      return true;
    },
    "/": () => search?.focus(), f: () => { toTop(); pick(shown.rows.at(0)); }, p: () => setLive(!isLive.value),
    x: () => mark(row(), false), " ": onList(() => mark(row(), false)), r: does("replay"), e: does("edit"), c: does("curl"), y: does("link"), w: does("explain"), "=": does("compare"),
    t: turn("tab", TABS), v: turn("form", FORMS), "[": () => act("attempt", -1), "]": () => act("attempt", 1),
    ...Object.fromEntries(Object.keys(VIEWS).map((name, i) => [String(i + 1), () => setView(name)])),
  };
  return Object.assign(self, {
    open: signal(Boolean(route.value.e) && isNarrow()), said: signal(""), back, unmark, toTop, setQuery, setView,
    giveSearch: (el) => { search = el; },
    giveDetail: (el) => {
      // What has the focus may be drawn by another component now.
      refocus ||= detail && !el && detail.contains(document.activeElement);
      detail = el;
      if (!el || !refocus) return;
      refocus = false;
      el.focus();
    },
    home: () => list?.el.focus(),
    holdList: (el) => {
      if (!el || list) return;
      list = mountList({ rows: () => shown.rows, marked, on: {
        pick: (one) => (isNarrow() ? into(one) : pick(one)), open: into, mark,
        top: () => { arrivals.value = 0; },
        bottom: () => { if (!state.value.problem && (!shown.query || state.value.productive)) more(); },
      } });
      el.append(list.el);
    },
    mounted: () => {
      let spoken = 0, unsaid = 0, before = 0;
      eye.isBelow = () => !list.isAtTop();
      const stops = [
        bind(keys),
        effect(look),
        effect(() => {
          version.value;
          list.ask();
          const { length } = shown.rows, now = Date.now();
          if (before && length > before) unsaid += length - before;
          before = length;
          if (!unsaid || now - spoken < 10_000) return;
          self.said.value = `${unsaid} new in the list`;
          [spoken, unsaid] = [now, 0];
        }),
        effect(() => list.select(route.value.e)),
        effect(() => {
          const { e } = route.value, { begun, busy } = state.value;
          if (!begun || busy || !e || shown.query || shown.rows.has(e) || self.sought === e) return;
          self.sought = e;
          around(e).then(() => list.reveal(e, true));
        }),
      ];
      foot.value = html`<${Foot} />`;
      list.el.focus({ preventScroll: true });
      return () => {
        for (const stop of stops) stop();
        eye.isBelow = () => false;
        list.end();
        foot.value = null;
      };
    },
  });
}

const lookedAt = () => `looked at ${count(state.value.looked)} events back to ${when(state.value.backTo)}`;

const Foot = live(() => {
  version.value;
  const { rows, query } = shown, { busy, problem } = state.value, oldest = rows.at(rows.length - 1);
  if (problem && !isQueryMistake(problem)) return html`<span class="bad">${problem.message}</span>`;
  return html`<span>${query ? html`<b>${count(rows.length)}</b> found; ${busy ? "looking…" : next() ? html`${lookedAt()}: <${Button} cls="plain" onClick=${more}>look further<//>` : "all looked at"}`
    : html`<b>${count(rows.length)}</b> ${rows.length === 1 ? "event" : "events"}${oldest && ` since ${when(oldest.received_at)}`}${busy && ", loading…"}`}</span>
    ${leftOut.value > 0 && html`<span>${plural(leftOut.value, "row")} left out of the live list: <${Button} cls="plain" onClick=${loadLeftOut}>load them<//></span>`}`;
});

/// Nothing came yet, and nothing is looked for.
const isNew = computed(() => {
  version.value;
  const { begun, busy, problem } = state.value;
  return begun && !busy && !problem && !shown.query && !shown.rows.length;
});

const Empty = live(({ onClear }) => {
  version.value;
  const { begun, busy, problem } = state.value;
  if (shown.rows.length || !begun || busy || isQueryMistake(problem)) return null;
  if (problem) return html`<div class="empty"><p class="say">${problem.message}</p></div>`;
  if (!shown.query) return html`<div class="empty"><${First} /></div>`;
  return html`<div class="empty"><p class="say">Nothing fits${next() ? `; ${lookedAt()}` : ", and all events were looked at"}.</p>
    <p>${next() && html`<${Button} onClick=${more}>Look further<//> `}<${Button} onClick=${onClear}>Clear the search<//></p></div>`;
});

/// What can be done to all marked ones, or to all that the query finds.
const Marks = live(({ onClear }) => {
  const n = marks.value, on = (...words) => () => act(...words, rowsOf(marked));
  if (!n) return null;
  return html`<div class="bulk" role="group" aria-label="Marked events"><b>${count(n)} marked</b>
    ${shown.query && may("act") && html`<${Button} cls="plain" onClick=${() => act("many", shown.query)}>or all that match…<//>`}<span class="grow"></span>
    ${may("read") && html`<${Button} cls="main" onClick=${on("replay")}>Replay<//>`}
    <${Button} disabled=${n !== 2} onClick=${on("compare")}>Compare<//><${Button} onClick=${on("save")}>Save…<//>
    ${may("act") && html`<${Button} onClick=${on("each", "revive")}>Revive<//><${Button} onClick=${on("each", "drop")}>Drop<//>`}
    <${Icon} label="Unmark all" onClick=${onClear}>✕<//></div>`;
});

/// The place of the event, and the way back from it where the window is narrow.
export const Place = ({ give, onBack, children }) => html`<div class="detail" role="region" aria-label="The event" tabindex="-1" ref=${give}><${Button} cls="back" onClick=${onBack}>‹ Events<//>${children}</div>`;

const Nothing = ({ busy, ...rest }) => html`<${Place} ...${rest}><p class="none pad" aria-busy=${busy ? "true" : null}>${busy ? "Loading…" : "Choose an event: its way, its bodies and what can be done stand here."}</p><//>`;

/// The line between list and detail, moved by hand or by arrows.
function Grip() {
  const set = (part, el) => {
    const to = Math.min(0.75, Math.max(0.25, part));
    el.parentElement.style.setProperty("--list", `${to * 100}%`);
    el.setAttribute("aria-valuenow", String(Math.round(to * 100)));
    localStorage.setItem(WIDTH, String(to));
  };
  const drag = ({ currentTarget: el, pointerId, clientX }) => {
    const box = el.parentElement.getBoundingClientRect();
    if (el.hasPointerCapture(pointerId)) set((clientX - box.left) / box.width, el);
  };
  const key = (event) => {
    const el = event.currentTarget, by = { ArrowLeft: -0.03, ArrowRight: 0.03 }[event.key];
    if (!by) return;
    event.preventDefault();
    set(el.previousElementSibling.clientWidth / el.parentElement.clientWidth + by, el);
  };
  return html`<div class="grip" role="separator" aria-orientation="vertical" aria-label="Width of the list" tabindex="0" aria-valuemin="25" aria-valuemax="75" aria-valuenow="50"
    ref=${(el) => { const kept = Number(localStorage.getItem(WIDTH)); if (el && kept) set(kept, el); }}
    onPointerDown=${(event) => event.currentTarget.setPointerCapture(event.pointerId)} onPointerMove=${drag} onKeyDown=${key}></div>`;
}

/// The way back to the newest, and how many came there meanwhile. By itself, so that it alone is drawn with each of them.
const Pill = live(({ onTop }) => (apart.value || arrivals.value > 0) && html`<button type="button" class="pill" onClick=${onTop}>${apart.value ? "↑ the newest" : pillText(arrivals.value)}</button>`);

const COLUMNS = [["", ""], ["time", ""], ["status", ""], ["endpoint", "e"], ["type", ""], ["path", "p"], ["took", "num"], ["size", "sz num"], ["", ""], ["agent", "ag"]];
const oneEndpoint = (query) => /(^|\s)endpoint:[^\s,*"]+(\s|$)/.test(query);

export default live(({ route: at }, own) => {
  const range = (since, until) => own.setQuery(`${at.q.replace(/(^|\s)(since|until):\S+/g, "").trim()} since:${since} until:${until}`.trim(), false);
  return html`<${Search} query=${at.q} view=${at.view} give=${own.giveSearch} onView=${own.setView} onLeave=${own.home} onQuery=${own.setQuery} />
    ${!isNew.value && html`<${Hour} onRange=${range} />`}
    <main class=${`split ${own.open.value ? "open" : ""} ${oneEndpoint(at.q) ? "one" : ""} ${isNew.value ? "new" : ""}`}>${!isNew.value && html`<h1 class="vh">Events</h1>`}
      <div class="listwrap"><div class="head cols" aria-hidden="true">${COLUMNS.map(([text, cls], i) => html`<span key=${i} class=${cls}>${text}</span>`)}</div>
        <div class="rowsbox" ref=${own.holdList}></div><${Empty} onClear=${() => go({ q: "", view: "" })} />
        <${Pill} onTop=${own.toTop} />
        <${Marks} onClear=${own.unmark} /></div>
      <${Grip} />
      ${h(at.e ? Detail : Nothing, { id: at.e, route: at, give: own.giveDetail, onBack: own.back })}
      <p class="vh" role="status">${own.said.value}</p></main>`;
}, (_, self) => room(self));
