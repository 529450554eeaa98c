// What the rooms share: questions that are asked again, work that can fail, tables, facts and forms.
//
// What was there stays when an answer does not come. What is shown as text alone is escaped here (`line`).

import { Button, confirm, html, live, openSheet, Sheet, signal, styles, toast } from "./html.js";
import { call, may } from "./api.js";
import { hear } from "./live.js";
import { line, span, when } from "./text.js";

await styles("/rooms.css");

/// `data` is the last answer, `problem` why there is no newer one. Asks again when the stream tells of one of `types`.
export function question(path, { query, types = [], every_s = 15 } = {}) {
  const own = { data: signal(null), problem: signal(null) };
  let now, soon;
  own.again = async () => {
    now?.abort();
    const mine = now = new AbortController();
    const settle = (data, problem) => {
      if (mine.signal.aborted) return;
      if (data) own.data.value = data;
      own.problem.value = problem;
    };
    await call("GET", path, { query: query?.(), signal: mine.signal }).then((data) => settle(data, null), (problem) => settle(null, problem));
  };
  own.start = () => {
    const off = hear((event) => {
      if (!types.includes(event) && event !== "resync") return;
      clearTimeout(soon);
      soon = setTimeout(own.again, 200);
    });
    const timer = setInterval(() => { if (!document.hidden) own.again(); }, every_s * 1000);
    own.again();
    return () => { off(); clearInterval(timer); clearTimeout(soon); now.abort(); };
  };
  return own;
}

/// Starts questions with their room and ends them with it. Returns the first.
export const asks = (self, ...all) => {
  self.mounted = () => {
    const ends = all.map((one) => one.start());
    return () => ends.forEach((end) => end());
  };
  return all[0];
};

export const told = (problem) => line(problem?.message || problem);

/// Does something and says how it went. Resolves to the answer, or to null.
export async function act(method, path, done, { query, body } = {}) {
  try {
    const answer = await call(method, path, { query, body: method === "POST" ? body ?? {} : body }) ?? {};
    if (done) toast(done);
    return answer;
  } catch (problem) {
    toast(told(problem));
    return null;
  }
}

/// The same after a question.
export const sure = async (title, text, verb, ...does) => await confirm(title, text, verb) && act(...does);

export const path = (...parts) => parts.map((part) => `/${encodeURIComponent(part)}`).join("");

/// A room. `asked` is its first question: until that is answered nothing else is shown.
export const Room = live(({ title, note, acts, asked, children }) => html`<main class="room" tabindex="-1" data-home><div class="room-in">
  <header class="rh"><h1>${title}</h1><span class="dim">${note}</span><span class="grow"></span>${acts}</header>
  <${Trouble} of=${asked.problem.value} />
  ${asked.data.value ? children : !asked.problem.value && html`<p class="dim" role="status">Asking the relay…</p>`}</div></main>`);

export const Trouble = ({ of, role = "status" }) => of && html`<p class="trouble" role=${role}>${told(of)}</p>`;

export const Part = ({ title, children }) => html`<section class="part"><h2>${title}</h2>${children}</section>`;

const cell = (one, of) => typeof of === "function" ? of(one) : line(one[of] ?? "");

/// `cols` are `[label, class, cell]`; a cell is a key of the row or makes something of it. Class `w` is for wide windows.
export const Table = ({ of, k, cap, cols }) => html`<table class="grid"><caption class="vh">${cap}</caption>
  <thead><tr>${cols.map(([label, cls]) => html`<th scope="col" class=${cls}>${label || html`<span class="vh">Actions</span>`}</th>`)}</tr></thead>
  <tbody>${of.map((one) => html`<tr key=${cell(one, k)}>${cols.map(([, cls, what], at) => at ? html`<td class=${cls}>${cell(one, what)}</td>` : html`<th scope="row" class=${cls}>${cell(one, what)}</th>`)}</tr>`)}</tbody></table>`;

export const Ago = ({ at }) => {
  const s = (Date.now() - new Date(at)) / 1000;
  return at && html`<time dateTime=${at} title=${when(at)}>${s < 5 ? "now" : `${span(s)} ago`}</time>`;
};
/// A cell with how long ago something was.
export const ago = (key, none) => (of) => (of[key] ? html`<${Ago} at=${of[key]} />` : none);

/// What takes a right, or the name of that right.
export const Needs = ({ right, of, children }) => (may(right, of) ? children : html`<p class="dim">needs the right <code>${right}</code></p>`);

const Input = ({ of: { id, label, hint, options, checks, ...rest }, values, set }) => {
  const value = values[id], said = hint && `${id}-says`;
  if (checks) return html`<fieldset><legend>${label}</legend>${checks.map(([name, says]) => html`<label class="check"><input type="checkbox" checked=${value.includes(name)}
    onChange=${() => set(id, value.includes(name) ? value.filter((one) => one !== name) : [...value, name])} /><code>${name}</code> <span class="dim">${says}</span></label>`)}</fieldset>`;
  const all = { id, value, "aria-describedby": said, autocomplete: "off", spellcheck: "false", onInput: (event) => set(id, event.target.value), ...rest };
  return html`<div class="field"><label for=${id}>${label}</label><div class="row">${options ? html`<select ...${all}>${options.map(([name, text]) => html`<option value=${name}>${text}</option>`)}</select>` : html`<input ...${all} />`}</div>${hint && html`<p class="dim" id=${said}>${hint}</p>`}</div>`;
};

const FormSheet = live(({ of, onClose }, own) => own.made.value
  ? html`<${Sheet} title=${of.done} fixed foot=${html`<${Button} cls="main" onClick=${onClose}>Done<//>`}>${of.shows(own.made.value, own.values.value, onClose)}<//>`
  : html`<${Sheet} title=${of.title} onClose=${onClose} foot=${html`<button type="submit" form="made" class="btn main">${of.verb}</button><${Button} onClick=${onClose}>Cancel<//>`}>
    <form class="form" id="made" onSubmit=${own.send}>${of.fields.map((one) => html`<${Input} key=${one.id} of=${one} values=${own.values.value} set=${own.set} />`)}
    <${Trouble} of=${own.problem.value} role="alert" /></form><//>`,
({ of }) => {
  const own = { made: signal(null), problem: signal(null), values: signal(Object.fromEntries(of.fields.map((one) => [one.id, one.value ?? ""]))) };
  let busy = false;
  own.set = (id, value) => { own.values.value = { ...own.values.value, [id]: value }; };
  own.send = (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    call("POST", of.path, of.asks(own.values.value)).then((made) => { own.made.value = made; }, (problem) => { own.problem.value = problem; }).finally(() => { busy = false; });
  };
  return own;
});

/// A sheet that makes something: `fields`, what is sent (`path`, `asks(values)`), and what is shown once it is there.
export function form(of, then) {
  const end = openSheet(FormSheet, { of, onClose: () => { end(); then?.(); } });
}
