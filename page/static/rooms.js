// What the rooms share: a question that is asked again when something changed, work that can fail, and small parts.
//
// A room never shows less because an answer did not come: what was there stays, and a line says what is wrong.

import { html, live, signal, toast } from "./html.js";
import { call } from "./api.js";
import { hear } from "./live.js";
import { line, span, when } from "./text.js";

/// A question to the relay: `data` is the last answer, `problem` why there is no newer one. `start()` asks, again when
/// the stream tells of one of `types`, and every `every_s` seconds while the page is seen; it returns what ends that.
export function question(path, { query, types = [], every_s = 15 } = {}) {
  const own = { data: signal(null), problem: signal(null) };
  let abort, timer, soon;
  own.again = async () => {
    abort?.abort();
    const mine = abort = new AbortController();
    try {
      const data = await call("GET", path, { query: typeof query === "function" ? query() : query, signal: mine.signal });
      if (mine.signal.aborted) return;
      own.data.value = data;
      own.problem.value = null;
    } catch (problem) {
      if (!mine.signal.aborted) own.problem.value = problem;
    }
  };
  own.start = () => {
    const changed = () => { clearTimeout(soon); soon = setTimeout(own.again, 200); };
    const off = hear((event) => { if (types.includes(event) || event === "resync") changed(); });
    timer = setInterval(() => { if (!document.hidden) own.again(); }, every_s * 1000);
    own.again();
    return () => { off(); clearInterval(timer); clearTimeout(soon); abort?.abort(); };
  };
  return own;
}

/// Starts several questions with their room and ends them with it.
export const asks = (self, ...questions) => {
  self.mounted = () => {
    const ends = questions.map((one) => one.start());
    return () => ends.forEach((end) => end());
  };
};

/// Does something at the relay and says how it went. Resolves to its answer, or to null.
export async function act(method, path, options, done) {
  try {
    const answer = await call(method, path, options) ?? {};
    if (done) toast(typeof done === "function" ? done(answer) : done);
    return answer;
  } catch (problem) {
    toast(told(problem));
    return null;
  }
}

export const told = (problem) => line(problem?.message || problem?.detail || String(problem));

/// A room: its heading, what can be done, and what is in it. `data-home` takes the focus when nothing else has it.
export const Room = ({ title, note, acts, problem, children }) => html`
  <main class="room" tabindex="-1" data-home><div class="room-in">
    <header class="rh"><h1>${title}</h1>${note ? html`<span class="dim">${note}</span>` : null}<span class="grow"></span>${acts}</header>
    ${problem ? html`<p class="trouble" role="status">${told(problem)}</p>` : null}
    ${children}
  </div></main>`;

export const Button = ({ onClick, children, kind = "", ...rest }) => html`
  <button type="button" class=${`btn ${kind}`} disabled=${rest.disabled} aria-label=${rest.label} onClick=${onClick}>${children}</button>`;

/// A table with a caption for those who cannot see it. `columns` are `[label, class]`.
export const Table = ({ caption, columns, children }) => html`
  <table class="grid"><caption class="vh">${caption}</caption>
    <thead><tr>${columns.map(([label, cls = ""]) => html`<th scope="col" class=${cls} key=${label}>${label || html`<span class="vh">Actions</span>`}</th>`)}</tr></thead>
    <tbody>${children}</tbody></table>`;

/// Facts as a list of terms; those without a value are left out.
export const Facts = ({ of }) => html`<dl class="known">${of.filter(([, value]) => value !== null && value !== undefined && value !== "")
  .map(([term, value, mono]) => html`<div key=${term}><dt>${term}</dt><dd class=${mono ? "mono" : ""}>${value}</dd></div>`)}</dl>`;

/// A time, with how long ago it was.
export const Ago = ({ at }) => {
  const s = (Date.now() - new Date(at ?? NaN).getTime()) / 1000;
  return at && !Number.isNaN(s) ? html`<time dateTime=${at} title=${when(at)}>${s < 5 ? "now" : `${span(Math.max(0, s))} ago`}</time>` : null;
};

/// Where one would look for what cannot be done.
export const Needs = ({ right }) => html`<p class="dim needs">needs the right <code>${right}</code></p>`;

/// A labelled field of a form; `hint` stands under it.
export const Field = ({ id, label, hint, children }) => html`<div class="field"><label for=${id}>${label}</label>${children}
  ${hint ? html`<p class="dim" id=${`${id}-hint`}>${hint}</p>` : null}</div>`;

export const Waiting = live(() => html`<p class="dim pending" role="status">Asking the relay…</p>`);
