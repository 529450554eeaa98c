// The field with the query: completion, mistakes, views, and whether the list is live.
//
// What is typed goes to the address, and from there to the list. The grammar is the relay's; here stand only the words
// that are offered.

import { call } from "./api.js";
import { Button, Dot, Icon, Seg, computed, html, live, signal } from "./html.js";
import { agents, hear, news } from "./live.js";
import { VIEWS, atHand, isQueryMistake, live as isLive, setLive, state } from "./feed.js";
import { line } from "./text.js";

const IS = "waiting running delivered answered rejected dead failed refused dropped damaged handshake replay redelivered conflict unproven retried live masked".split(" ");
const KEYS = {
  endpoint: () => endpoints.value, agent: () => (agents.value?.agents ?? []).map((agent) => agent.name), method: () => ["POST", "GET", "PUT"],
  type: () => seenIn("event_type"), path: () => [...new Set(seenIn("target").map((target) => target.split("?")[0]))], is: () => IS, status: () => ["2xx", "4xx", "5xx", "none"],
  why: () => seenIn("why"), took: () => [">500ms", ">5s"], size: () => [">100kB"], attempts: () => [">1"], patience: () => [">50%", ">80%"],
  since: () => ["15m", "1h", "1d"], until: () => ["15m", "1h"], header: () => [], answer: () => [], body: () => [], id: () => [],
};

const endpoints = signal([]);
async function loadEndpoints() {
  const found = await call("GET", "/endpoints").catch(() => null);
  endpoints.value = (found?.endpoints ?? []).map((one) => one.name);
}
hear((event) => { if (event === "endpoints") loadEndpoints(); });

/// Values of the newest rows, the frequent ones first.
function seenIn(key) {
  const counts = new Map(), rows = atHand();
  for (let i = 0; i < Math.min(rows.length, 1000); i++) {
    const value = rows.at(i)[key];
    if (value && !/[\s",]/.test(value)) counts.set(value, (counts.get(value) ?? 0) + 1);
  }
  return [...counts].sort((a, b) => b[1] - a[1]).map(([value]) => value);
}

/// What may stand for the term that ends at the caret: `{from, options}`.
export function completions(text, caret) {
  const [term, minus, rest] = /(-?)(\S*)$/.exec(text.slice(0, caret)), [, key, value] = /^([a-z]+):(?:.*,)?([^,]*)$/.exec(rest) ?? [];
  const begun = (words, by) => words.filter((word) => by && word.startsWith(by));
  let options = [], from = caret - term.length;
  if (key && Object.hasOwn(KEYS, key)) {
    from = caret - value.length;
    options = KEYS[key]().filter((word) => word.startsWith(value) && word !== value);
  } else if (!rest.includes(":")) options = [...begun(Object.keys(KEYS), rest).map((word) => `${minus}${word}:`), ...(rest.length > 1 ? begun(IS, rest) : []).map((word) => `${minus}is:${word}`)];
  return { from, options: options.slice(0, 8) };
}

/// `onQuery(text, typing)` for each change; `onLeave()` goes to the list.
export const Search = live(({ query, view, onQuery, onView, onLeave, give }, own) => {
  const { problem } = state.value, { from, options } = own.offered.value, open = options.length > 0 && own.open.value;
  // What is typed is in the address at once, so another query there came from elsewhere: from Back, a link, a drag.
  if (own.told?.trim() !== query) {
    own.text.value = own.told = query;
    own.typing = false;
  }
  const mistake = isQueryMistake(problem) ? problem : null, moves = isLive.value && !["none", "lost"].includes(news.value.state);
  return html`<div class="bar" role="search"><div class="search">
      <input type="text" ref=${(el) => { own.el = el; give(el); }} value=${own.text.value} placeholder="Search bodies, headers, ids…   endpoint:pay  status:5xx  type:invoice.*  took:>500ms  -type:ping"
        aria-label="Search" role="combobox" aria-expanded=${String(open)} aria-controls="offers" aria-autocomplete="list" maxlength="512"
        aria-activedescendant=${open && own.at.value >= 0 ? `offer-${own.at.value}` : null} aria-invalid=${mistake ? "true" : null}
        aria-describedby=${mistake ? "mistake" : null} spellcheck=${false} autocomplete="off" autocapitalize="off"
        onInput=${(event) => own.input(event.currentTarget, onQuery)} onKeyDown=${(event) => own.key(event, onQuery, onLeave)}
        onBlur=${() => { own.open.value = false; own.typing = false; }} />
      ${own.text.value ? html`<${Icon} label="Clear the search" onClick=${() => { own.text.value = ""; own.el.focus(); onQuery("", false); }}>✕<//>` : html`<kbd>/</kbd>`}
      <ul id="offers" role="listbox" aria-label="Completions" class="offers" hidden=${!open}>${options.map((word, i) => html`
        <li key=${word} id=${`offer-${i}`} role="option" aria-selected=${String(i === own.at.value)} class="mono"
          onMouseDown=${(event) => { event.preventDefault(); own.take(from, word, onQuery); }}>${line(word)}</li>`)}</ul>
    </div>
    <${Seg} cls="views" label="Views" value=${view || "all"} onPick=${onView} options=${Object.keys(VIEWS).map((name) => [name, name[0].toUpperCase() + name.slice(1)])} />
    <${Button} k="p" aria-pressed=${String(isLive.value)} onClick=${() => setLive(!isLive.value)}><${Dot} on=${moves} />${!isLive.value ? "Paused" : moves ? "Live" : "Not live"}<//>
  </div>
  ${mistake && html`<p id="mistake" class="mistake" role="alert">${mistake.message}${typeof mistake.at === "number" && html`: <code class="mono">${placeOf(own.text.value, mistake.at)}</code>`}</p>`}`;
}, () => {
  const own = { text: signal(""), caret: signal(0), open: signal(false), at: signal(-1), told: null, typing: false, el: null };
  own.offered = computed(() => completions(own.text.value, own.caret.value));
  loadEndpoints();
  own.input = (el, onQuery) => {
    own.text.value = own.told = el.value;
    own.caret.value = el.selectionStart ?? el.value.length;
    own.open.value = true;
    own.at.value = -1;
    onQuery(el.value.trim(), own.typing);
    own.typing = true;
  };
  own.take = (from, word, onQuery) => {
    const whole = own.text.value, text = word.endsWith(":") ? word : `${word} `, next = whole.slice(0, from) + text + whole.slice(own.caret.value).trimStart(), caret = from + text.length;
    own.el.value = next;
    own.el.setSelectionRange(caret, caret);
    own.input(own.el, onQuery);
    own.open.value = word.endsWith(":");
  };
  own.key = (event, onQuery, onLeave) => {
    const { from, options } = own.offered.value, n = options.length, open = own.open.value && n > 0, { key } = event, at = own.at.value;
    if (open && key === "ArrowDown") own.at.value = (at + 1) % n;
    else if (open && key === "ArrowUp") own.at.value = (Math.max(at, 0) + n - 1) % n;
    else if (open && (key === "Tab" || key === "Enter") && (at >= 0 || (key === "Tab" && !event.shiftKey))) own.take(from, options[Math.max(0, at)], onQuery);
    else if (key === "Escape" && open) own.open.value = false;
    else if (key === "Enter" || key === "Escape" || key === "ArrowDown") onLeave();
    else return;
    event.preventDefault();
  };
  return own;
});

/// The piece of a query at a byte's place.
function placeOf(query, at) {
  const bytes = new TextEncoder().encode(query).slice(at);
  return line(new TextDecoder().decode(bytes).split(/\s/)[0] || "at its end");
}
