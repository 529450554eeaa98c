// The frame: which room is shown, the way between rooms, logging in, and what is told on top of every room.
//
// A room is a module whose default export is a component; it gets `route`. A room that the one who asks may not enter has
// no link. The address is the only place for what is shown; `go` changes it.

import { about, atAgent, begin as beginApi, enter, has, may, newer, session, whoAmI } from "./api.js";
import { Button, Component, Dot, Icon, Sheet, Sheets, Toast, effect, html, lazy, live, openSheet, render, signal } from "./html.js";
import { KEYS, bind, listen, setSingles, singles } from "./keys.js";
import { agents, begin as beginLive, dead, news } from "./live.js";
import { format, parse } from "./route.js";
import { clock, count, plural } from "./text.js";

/// The rooms in the order of their links; `badge` is a signal with a count, or nothing.
export const ROOMS = {
  events: { label: "Events", load: () => import("./events.js") },
  endpoints: { label: "Endpoints", load: () => import("./endpoints.js") },
  agents: { label: "Agents", load: () => import("./agents.js") },
  dead: { label: "Dead letters", load: () => import("./dead.js"), badge: dead },
  figures: { label: "Figures", load: () => import("./figures.js"), shown: () => has("figures") },
  access: { label: "Access", load: () => import("./access.js"), shown: () => may("admin") },
  agent: { label: "This agent", load: () => import("./agent.js"), shown: atAgent },
};

export const route = signal(parse(location.pathname, location.search));

/// Changes the address: a new entry of the history, or the same one where `replace` is set. Where a room is named, what is
/// not named with it is left behind.
export function go(change, { replace = false } = {}) {
  const next = { ...route.value, ...change };
  if (change.room) for (const key of Object.keys(next)) if (!(key in change)) next[key] = "";
  const to = format(next);
  if (to !== location.pathname + location.search) history[replace ? "replaceState" : "pushState"](null, "", to);
  route.value = next;
}

const follow = (event, to) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  menu.value = false;
  go(to);
};
/// A link within the page.
export const Link = ({ to, children, ...rest }) => html`<a ...${rest} href=${format({ ...parse("/"), ...to })}
  onClick=${(event) => follow(event, to)}>${children}</a>`;

const open = (name) => !ROOMS[name].shown || ROOMS[name].shown();
const menu = signal(false);
/// Words at the foot of the page, from the room that is shown.
export const foot = signal(null);

const Nav = live(() => html`<nav aria-label="Pages" class=${menu.value ? "open" : ""}>${Object.entries(ROOMS).map(([name, room]) => open(name) && html`
  <${Link} key=${name} to=${{ room: name }} aria-current=${route.value.room === name ? "page" : null}>${room.label}
    ${room.badge?.value > 0 && html` <span class="count bad">${count(room.badge.value)}</span>`}<//>`)}</nav>`);

const AgentsLink = live(() => {
  const all = agents.value?.agents;
  return html`<div class="link" title=${all?.map((agent) => agent.name).join(", ")}>${all && html`
    <${Dot} on=${all.length > 0} /><span>${all.length ? plural(all.length, "agent") : "no agent"} attached</span>`}</div>`;
});

const Top = live(() => html`<header class="top">
  <div class="brand">Relay<span class="host">${hostOf(about.value?.relay?.public_url)}</span></div><${Nav} />
  <span class="grow"></span><${AgentsLink} />
  <${Icon} label="Theme" title="Light, dark or as the system (d)" onClick=${turnTheme}>◐<//><${Icon} label="Keys" title="Keys (?)" onClick=${help}>?<//>
  <button type="button" class="icon menu" aria-label="Pages" aria-expanded=${String(menu.value)} onClick=${() => { menu.value = !menu.value; }}>☰</button>
</header>`);

function hostOf(url) {
  try {
    return new URL(url).host;
  } catch {
    return atAgent() ? "this agent" : "";
  }
}

const Reload = () => html`<${Button} onClick=${() => location.reload()}>Reload<//>`;

/// What is wrong with the news, over every room.
const Banner = live((_, own) => {
  const { state, since, again, why } = news.value, other = newer();
  if (session.value.state === "unreachable") return html`<div class="banner" role="alert">The relay cannot be reached; trying again.</div>`;
  if (other) return html`<div class="banner" role="status">${other}. <${Reload} /></div>`;
  if (state !== "quiet" && state !== "lost") return null;
  const left = Math.ceil((again - own.now.value) / 1000);
  return html`<div class="banner" role="status">No news since ${clock(since)}; ${again ? "trying again" : "waiting"}${left > 0 && ` in ${left} s`}.${why && html` <span class="dim">${why}</span>`}</div>`;
}, (_, self) => {
  const own = { now: signal(Date.now()) };
  self.mounted = () => {
    const timer = setInterval(() => { if (news.peek().again) own.now.value = Date.now(); }, 500);
    return () => clearInterval(timer);
  };
  return own;
});

/// Holds a failure of one room, so that the frame stays.
class Fence extends Component {
  componentDidCatch(error) {
    console.error(error);
    this.setState({ error });
  }
  render({ children }, { error }) {
    if (!error) return children;
    return html`<main class="room"><h1>This part of the page failed</h1><p class="say">${String(error.message ?? error)}</p><${Reload} /></main>`;
  }
}

const waiting = ({ label }) => html`<main class="room" aria-busy="true"><h1 class="vh">${label}</h1></main>`;
for (const room of Object.values(ROOMS)) room.view = lazy(room.load, "default", waiting);
const Room = live(() => {
  const { room } = route.value, known = ROOMS[room];
  if (!open(room)) return html`<main class="room"><h1>Nothing is here</h1><p class="say">This page is not there, or needs a right that this key has not.</p></main>`;
  return html`<${Fence} key=${room}><${known.view} label=${known.label} route=${route.value} /><//>`;
});

const Foot = live(() => html`<footer class="foot">${foot.value}<span class="grow"></span>
  <span class="wide"><kbd>j</kbd> <kbd>k</kbd> move  <kbd>r</kbd> replay  <kbd>e</kbd> edit  <kbd>/</kbd> search  <kbd>?</kbd> keys</span>
  <span>${about.value ? `relay ${about.value.relay?.version ?? ""}` : ""}</span></footer>`);

/// Asks for a key over whatever is shown; nothing that was typed is lost.
const Login = live((_, own) => html`<${Sheet} title=${about.value ? "The key has expired" : "Open the inspector"} kind="small" fixed
    onClose=${() => null} foot=${html`<button type="submit" form="login" class="btn main" disabled=${own.busy.value}>Open</button>`}>
  <form id="login" onSubmit=${(event) => { event.preventDefault(); own.send(); }}>
    <p class="say">Run <code class="mono">relay-server inspect</code> beside the relay, or look at what the agent printed, and paste the address here. A token works, too.</p>
    <label class="f">Address, code or token<input class="in" type="password" autocomplete="off" data-first value=${own.text.value}
      onInput=${(event) => { own.text.value = event.currentTarget.value; }} /></label>
    <p class="say bad" role="alert">${own.problem.value || session.value.why || ""}</p>
  </form><//>`, () => {
  const own = { text: signal(""), problem: signal(""), busy: signal(false) };
  own.send = async () => {
    own.busy.value = true;
    try {
      await enter(own.text.value);
    } catch (problem) {
      own.problem.value = problem.message;
    }
    own.busy.value = false;
  };
  return own;
});

const App = live(() => html`<div class="app" data-room=${route.value.room}><${Top} /><${Banner} />
  ${about.value ? html`<${Room} />` : html`<main class="room"></main>`}<${Foot} /></div>
  <${Sheets} /><${Toast} />${session.value.state === "out" ? html`<${Login} />` : null}`);

const THEME = "relay.theme";
function turnTheme() {
  localStorage.setItem(THEME, { light: "dark", dark: "" }[localStorage.getItem(THEME)] ?? "light");
  showTheme();
}
function showTheme() {
  document.documentElement.dataset.theme = localStorage.getItem(THEME) ?? "";
}

const help = () => { openSheet(Help); };
const Help = live(({ onClose }) => html`<${Sheet} title="Keys" onClose=${onClose}>
  <div class="keys">${KEYS.map(([title, list]) => html`<h2 key=${title}>${title}</h2>${list.map(([one, other, what]) => html`
    <div key=${what}><span>${what}</span><span><kbd>${one}</kbd>${other && html` <kbd>${other}</kbd>`}</span></div>`)}`)}</div>
  <label class="check"><input type="checkbox" checked=${singles.value} onChange=${(event) => setSingles(event.currentTarget.checked)} />
    Single keys work (turn off if you use speech input)</label><//>`);

addEventListener("popstate", () => { route.value = parse(location.pathname, location.search); });
bind({
  "?": help, d: turnTheme, ...Object.fromEntries([["e", "events"], ["n", "endpoints"], ["a", "agents"], ["d", "dead"], ["s", "figures"]]
    .map(([key, room]) => [`g ${key}`, () => (ROOMS[room] && open(room) ? go({ room }) : false)])),
});

showTheme();
listen();
render(html`<${App} />`, document.getElementById("app"));
effect(() => { document.title = `Relay: ${ROOMS[route.value.room].label.toLowerCase()}`; });
/// Not at the top level: the room's module, which comes while the relay is asked who this is, would wait for that.
async function start() {
  await beginApi();
  while (session.value.state === "unreachable") {
    await new Promise((resolve) => { setTimeout(resolve, 2000); });
    await whoAmI().catch(() => null);
  }
  beginLive();
}
start();
ROOMS[route.value.room].load().catch(() => null);
