// The events: search, the last hour, the list, and the event that is open beside it.
//
// What is shown stands in the address: the query, the view, the open event. This room joins the parts and binds the keys;
// rows come from `feed.js`, what is done to events stands in `acts.js`.

import { may } from "./api.js";
import { foot, go, route } from "./app.js";
import { VIEWS, apart, around, arrivals, find, isQueryMistake, leftOut, live as isLive, loadLeftOut, more, newest, setLive, shown, state, version } from "./feed.js";
import { Hour } from "./hour.js";
import { computed, effect, h, html, lazy, live, signal } from "./html.js";
import { bind } from "./keys.js";
import { failureFrom, mountList, pillText } from "./list.js";
import { FORMS, TABS } from "./route.js";
import { Search } from "./search.js";
import { count, when } from "./text.js";

const Detail = lazy(() => import("./event.js"), "Detail", (props) => html`<${Nothing} ...${props} busy />`), First = lazy(() => import("./first.js"), "First");
/// Does something to events; what it takes for that is fetched when it is first asked for.
const act = async (name, ...rest) => (await import("./acts.js")).acts[name](...rest);
const marked = new Set(), marks = signal(0);
const isNarrow = () => matchMedia("(max-width:860px)").matches;
const WIDTH = "relay.split";

function room(self) {
  let list = null, search = null, rangeFrom = "", detail = null, refocus = false;
  const selected = () => route.value.e, row = () => shown.rows.row(selected());
  const pick = (next, { replace = true } = {}) => {
    if (!next) return;
    rangeFrom = "";
    go({ e: next.id, at: "" }, { replace });
    list?.reveal(next.id);
  };
  const into = (next) => {
    if (!next) return;
    pick(next, { replace: next.id === selected() && !isNarrow() });
    self.open.value = true;
    requestAnimationFrame(() => detail?.focus());
  };
  const back = () => {
    self.open.value = false;
    list?.el.focus();
  };
  const move = (by) => {
    const { rows } = shown, at = selected() ? rows.indexOf(selected()) + (rows.has(selected()) ? by : 0) : 0;
    pick(rows.at(Math.min(rows.length - 1, Math.max(0, at))));
  };
  const mark = (one, range) => {
    if (!one) return;
    const { rows } = shown;
    if (range) {
      rangeFrom ||= selected() || one.id;
      const [low, high] = [rows.indexOf(rangeFrom), rows.indexOf(one.id)].sort((a, b) => a - b);
      for (let i = low; i <= high && marked.size < 1000; i++) marked.add(rows.at(i).id);
      const from = rangeFrom;
      pick(one);
      rangeFrom = from;
    } else if (!marked.delete(one.id)) marked.add(one.id);
    marks.value = marked.size;
    list.ask();
  };
  const unmark = () => {
    marked.clear();
    marks.value = 0;
    list?.ask();
  };
  const setQuery = (q, typing) => go({ q, e: route.value.e }, { replace: typing });
  const setView = (view) => go({ view: view === "all" ? "" : view });
  const here = () => (selected() ? shown.rows.indexOf(selected()) : -1);
  const failure = (step) => pick(shown.rows.at(failureFrom(shown.rows, here(), step)));
  const does = (name) => () => {
    if (marked.size && ["replay", "compare"].includes(name)) return act(name, [...marked].map((id) => shown.rows.row(id) ?? { id }));
    return row() || selected() ? act(name, [row() ?? { id: selected() }]) : false;
  };
  const turn = (key, values) => () => {
    const now = values.indexOf(route.value[key] || values[0]);
    go({ [key]: values[(now + 1) % values.length] }, { replace: true });
  };
  const onList = (act) => (event) => (event.target.closest(".detail") ? false : act());
  const keys = {
    j: () => move(1), k: () => move(-1), ArrowDown: onList(() => move(1)), ArrowUp: onList(() => move(-1)),
    PageDown: onList(() => move(list.page())), PageUp: onList(() => move(-list.page())), Home: onList(() => move(-1e9)), End: onList(() => move(1e9)),
    "g g": () => { newest(); move(-1e9); }, G: () => move(1e9), n: () => failure(1), N: () => failure(-1),
    J: () => mark(shown.rows.at(Math.min(shown.rows.length - 1, here() + 1)), true), K: () => mark(shown.rows.at(Math.max(0, here() - 1)), true),
    Enter: () => into(row() ?? shown.rows.at(0)),
    Escape: () => {
      if (self.open.value || detail?.contains(document.activeElement)) back();
      else if (marked.size) unmark();
      else if (route.value.q || route.value.view) go({ q: "", view: "" });
      else return false;
      return true;
    },
    "/": () => search?.focus(), f: () => { newest(); list.toTop(); pick(shown.rows.at(0)); }, p: () => setLive(!isLive.value),
    x: () => mark(row(), false), " ": onList(() => mark(row(), false)), r: does("replay"), e: does("edit"), c: does("curl"), y: does("link"), w: does("explain"), "=": does("compare"),
    t: turn("tab", TABS), v: turn("form", FORMS), "[": () => act("attempt", -1), "]": () => act("attempt", 1),
    ...Object.fromEntries(Object.keys(VIEWS).map((name, i) => [String(i + 1), () => setView(name)])),
  };
  Object.assign(self, {
    open: signal(Boolean(route.value.e) && isNarrow()), fresh: signal(0), said: signal(""), pick, into, back, mark, unmark, setQuery, setView,
    giveSearch: (el) => { search = el; }, giveDetail: (el) => {
      const had = detail && !el && detail.contains(document.activeElement);
      if (had) refocus = true;
      detail = el;
      if (el && refocus) {
        refocus = false;
        el.focus();
      }
    }, home: () => list?.el.focus(),
    top: () => { newest(); list.toTop(); },
    holdList: (el) => {
      if (!el || list) return;
      list = mountList({ rows: () => shown.rows, marked, on: {
        pick: (one) => (isNarrow() ? into(one) : pick(one)), open: into, mark,
        top: () => { if (arrivals.size) { arrivals.clear(); self.fresh.value = 0; } },
        bottom: () => { if (!state.value.problem && (!shown.query || state.value.productive)) more(); },
      } });
      el.append(list.el);
    },
    mounted: () => {
      const unbind = bind(keys);
      let spoken = 0, unsaid = 0, lastSize = 0;
      const stops = [
        effect(() => {
          const { q, view } = route.value;
          find([VIEWS[view] ?? "", q].filter(Boolean).join(" "));
        }),
        effect(() => {
          version.value;
          list.ask();
          if (list.isAtTop()) arrivals.clear();
          if (arrivals.size !== self.fresh.peek()) self.fresh.value = arrivals.size;
          const { length } = shown.rows, now = Date.now();
          if (lastSize && length > lastSize) unsaid += length - lastSize;
          lastSize = length;
          if (unsaid && now - spoken > 10_000) {
            self.said.value = `${count(unsaid)} new in the list`;
            [spoken, unsaid] = [now, 0];
          }
        }),
        effect(() => list.select(route.value.e)),
        effect(() => {
          const { e } = route.value;
          if (!state.value.begun || state.value.busy || !e || shown.query || shown.rows.has(e) || self.sought === e) return;
          self.sought = e;
          around(e).then(() => list.reveal(e, true));
        }),
        effect(() => { foot.value = html`<${Foot} />`; }),
      ];
      list.el.focus({ preventScroll: true });
      return () => {
        unbind();
        for (const stop of stops) stop();
        list.end();
        foot.value = null;
      };
    },
  });
  return self;
}

const Foot = live(() => {
  version.value;
  const { rows, query } = shown, { looked, backTo, next, busy, full, problem } = state.value, oldest = rows.at(rows.length - 1);
  if (problem && !isQueryMistake(problem)) return html`<span class="bad">${problem.message}</span>`;
  return html`<span>${query ? html`<b>${count(rows.length)}</b> found; ${busy ? "looking…" : next ? html`looked at ${count(looked)} events back to ${when(backTo)}: <button type="button" class="btn plain" onClick=${more}>look further</button>` : "all looked at"}`
    : html`<b>${count(rows.length)}</b> ${rows.length === 1 ? "event" : "events"}${oldest ? ` since ${when(oldest.received_at)}` : ""}${busy ? ", loading…" : ""}`}</span>
    ${full ? html`<span>No more than ${count(rows.max)} are held: search for a time, until:…</span>` : null}
    ${leftOut.value ? html`<span>${count(leftOut.value)} rows were left out of the live list: <button type="button" class="btn plain" onClick=${loadLeftOut}>load them</button></span>` : null}`;
});

/// Nothing came yet, and nothing is looked for.
const isNew = computed(() => {
  version.value;
  const { begun, busy, problem } = state.value;
  return begun && !busy && !problem && !shown.query && !shown.rows.length;
});

const Empty = live(({ onClear }) => {
  version.value;
  const { begun, busy, problem, next, looked, backTo } = state.value;
  if (shown.rows.length || !begun || busy) return null;
  if (isQueryMistake(problem)) return null;
  if (problem) return html`<div class="empty"><p class="say">${problem.message}</p></div>`;
  if (!shown.query) return html`<div class="empty"><${First} /></div>`;
  return html`<div class="empty"><p class="say">Nothing fits${next ? `; looked at ${count(looked)} events back to ${when(backTo)}` : ", and all events were looked at"}.</p>
    <p>${next ? html`<button type="button" class="btn" onClick=${more}>Look further</button> ` : null}<button type="button" class="btn" onClick=${onClear}>Clear the search</button></p></div>`;
});

/// What can be done to all marked ones, or to all that the query finds.
const Marks = live(({ onClear }) => {
  const n = marks.value;
  if (!n) return null;
  const chosen = () => [...marked].map((id) => shown.rows.row(id) ?? { id });
  const all = shown.query && may("act");
  return html`<div class="bulk" role="group" aria-label="Marked events"><b>${count(n)} marked</b>
    ${all ? html`<button type="button" class="btn plain" onClick=${() => act("many", shown.query)}>or all that match…</button>` : null}<span class="grow"></span>
    ${may("read") ? html`<button type="button" class="btn main" onClick=${() => act("replay", chosen())}>Replay</button>` : null}
    <button type="button" class="btn" disabled=${n !== 2} onClick=${() => act("compare", chosen())}>Compare</button>
    <button type="button" class="btn" onClick=${() => act("save", chosen())}>Save…</button>
    ${may("act") ? html`<button type="button" class="btn" onClick=${() => act("each", "revive", chosen())}>Revive</button>
      <button type="button" class="btn" onClick=${() => act("each", "drop", chosen())}>Drop</button>` : null}
    <button type="button" class="icon" aria-label="Unmark all" onClick=${onClear}>✕</button></div>`;
});

/// The place of the event while none is open, or while what shows it is fetched.
const Nothing = ({ give, onBack, busy }) => html`<div class="detail" role="region" aria-label="The event" tabindex="-1" ref=${give}><button type="button" class="btn back" onClick=${onBack}>‹ Events</button>
  <p class="none pad" aria-busy=${busy ? "true" : null}>${busy ? "Loading…" : "Choose an event: its way, its bodies and what can be done stand here."}</p></div>`;

/// The line between list and detail, moved by hand or by arrows.
function Grip() {
  const set = (part, el) => {
    const to = Math.min(0.75, Math.max(0.25, part));
    el.parentElement.style.setProperty("--list", `${to * 100}%`);
    el.setAttribute("aria-valuenow", String(Math.round(to * 100)));
    localStorage.setItem(WIDTH, String(to));
  };
  const now = (el) => el.previousElementSibling.getBoundingClientRect().width / el.parentElement.clientWidth;
  const drag = (event) => {
    if (!event.currentTarget.hasPointerCapture(event.pointerId)) return;
    set((event.clientX - event.currentTarget.parentElement.getBoundingClientRect().left) / event.currentTarget.parentElement.clientWidth, event.currentTarget);
  };
  return html`<div class="grip" role="separator" aria-orientation="vertical" aria-label="Width of the list" tabindex="0" aria-valuemin="25" aria-valuemax="75" aria-valuenow="50"
    ref=${(el) => { const kept = Number(localStorage.getItem(WIDTH)); if (el && kept) set(kept, el); }}
    onPointerDown=${(event) => event.currentTarget.setPointerCapture(event.pointerId)} onPointerMove=${drag}
    onKeyDown=${(event) => { const by = { ArrowLeft: -0.03, ArrowRight: 0.03 }[event.key]; if (by) { event.preventDefault(); set(now(event.currentTarget) + by, event.currentTarget); } }}></div>`;
}

/// The way back to the newest, and how many came there meanwhile. By itself, so that it alone is drawn with each of them.
const Pill = live(({ fresh, onTop }) => (apart.value || fresh.value ? html`<button type="button" class="pill" onClick=${onTop}>${apart.value ? "↑ the newest" : pillText(fresh.value)}</button>` : null));

const columns = [["", ""], ["time", ""], ["status", ""], ["endpoint", "e"], ["type", ""], ["path", "p"], ["took", "num"], ["size", "sz num"], ["", ""], ["agent", "ag"]];
const oneEndpoint = (query) => /(^|\s)endpoint:[^\s,*"]+(\s|$)/.test(query);

export default live(({ route: at }, own, self) => {
  const range = (since, until) => own.setQuery(`${at.q.replace(/(^|\s)(since|until):\S+/g, "").trim()} since:${since} until:${until}`.trim(), false);
  return html`<${Search} query=${at.q} view=${at.view} give=${own.giveSearch} onView=${own.setView} onLeave=${own.home} onQuery=${own.setQuery} />
    ${isNew.value ? null : html`<${Hour} onRange=${range} />`}
    <main class=${`split ${own.open.value ? "open" : ""} ${oneEndpoint(at.q) ? "one" : ""} ${isNew.value ? "new" : ""}`}>${isNew.value ? null : html`<h1 class="vh">Events</h1>`}
      <div class="listwrap"><div class="head cols" aria-hidden="true">${columns.map(([text, cls], i) => html`<span key=${i} class=${cls}>${text}</span>`)}</div>
        <div class="rowsbox" ref=${own.holdList}></div><${Empty} onClear=${() => go({ q: "", view: "" })} />
        <${Pill} fresh=${own.fresh} onTop=${own.top} />
        <${Marks} onClear=${own.unmark} /></div>
      <${Grip} />
      ${h(at.e ? Detail : Nothing, { id: at.e, route: at, give: own.giveDetail, onBack: own.back })}
      <p class="vh" role="status">${own.said.value}</p></main>`;
}, (_, self) => room(self));
