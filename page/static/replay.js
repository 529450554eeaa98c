// Replaying: where to, and what is changed before.
//
// The editor holds what will be sent, never what is shown: text that comes back byte for byte, else digits or a file. A
// draft stays until it is sent or the page goes; the sheet stays open with the answer for the next try.

import { about, call, isAbort, may, pathOf } from "./api.js";
import { asked, everybody, outcome, send, serving, setTarget, target, toAgent, whoever } from "./acts.js";
import { bytesOf } from "./body.js";
import { align } from "./diff.js";
import { headerOf } from "./event.js";
import { base64, dump, textOf, undump } from "./hex.js";
import { Button, Dot, Seg, Sheet, html, live, openSheet, signal, toast } from "./html.js";
import { layout, mistake } from "./json.js";
import { line, plural, seen, size, title } from "./text.js";

const MOST = 1_048_576;
const radio = (name, value, chosen, label, note) => html`<label key=${value}><input type="radio" name=${name} value=${value} checked=${chosen.value === value} onChange=${() => { chosen.value = value; }} /><span>${label} <small>${note}</small></span></label>`;

/// The places that an event may be sent to, by a name for each.
function places(of) {
  const agents = serving(of.endpoint).map((agent) => [`${agent.name}:${agent.instance}`, toAgent(agent)]), own = target(of), out = new Map(agents);
  if (own?.to === "agent" && !agents.some(([, one]) => one.name === own.name)) out.set("own", own);
  if (toAll(of)) out.set("", everybody(of.endpoint));
  return out;
}
/// Whether it may go to whoever serves its endpoint; a live one is not kept for that.
const toAll = ({ endpoint, kind }) => kind !== "live" && may("replay", endpoint);

const Places = ({ of, all, chosen }) => html`<fieldset class="opts"><legend>To</legend>
  ${[...all].map(([name, place]) => radio("to", name, chosen, place.label, place.to === "agent" ? "this agent alone; nothing changes at the relay" : `as a new event: ${whoever(of.endpoint)}`))}
  ${of.kind !== "live" && !toAll(of) && html`<small>To whoever serves it: needs the right replay</small>`}
  ${!all.size && html`<p class="say">No agent serves ${line(of.endpoint)} now, and ${of.kind === "live" ? "a live webhook goes to one agent alone" : "this key may not replay to whoever will"}.</p>`}</fieldset>`;

const first = (of, all) => {
  const own = target(of);
  return [...all].find(([, place]) => own && place.to === own.to && place.name === own.name)?.[0] ?? [...all.keys()][0];
};

const Choose = live(({ of, onClose, then }, to) => {
  const all = places(of);
  if (!all.has(to.value)) to.value = first(of, all);
  const go = () => {
    setTarget(of.endpoint, all.get(to.value));
    asked.add(of.endpoint);
    onClose();
    then();
  };
  return html`<${Sheet} title="Replay: where to?" note=${line(of.endpoint)} kind="small" onClose=${onClose}
      foot=${html`<${Button} cls="main" data-first disabled=${!all.size} onClick=${go}>Replay<//><${Button} onClick=${onClose}>Cancel<//>`}>
    <${Places} of=${of} all=${all} chosen=${to} /><p class="dim">The button names this place from now on; Edit and replay changes it.</p><//>`;
}, () => signal());

export const choose = (of, then) => openSheet(Choose, { of, then });

// What the relay or the connection writes is not edited.
const FIXED = /^(relay-.*|content-length|host|x-forwarded-.*|forwarded|connection|transfer-encoding)$/i;
const headerText = (headers) => headers.filter(([name]) => !FIXED.test(name)).map(([name, value]) => `${name}: ${value}`).join("\n");

/// Lines as pairs; `{headers}` or `{line, message}`.
export function headersFrom(text) {
  const headers = [];
  for (const [i, one] of text.split("\n").entries()) {
    if (!one.trim()) continue;
    const match = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]?(.*)$/.exec(one);
    if (!match) return { line: i + 1, message: "a header is a name, a colon and a value" };
    headers.push([match[1], match[2].trim()]);
  }
  return { headers };
}

/// Whether there is a signature that could be made afresh, and whether this key may have that done.
const isSigned = (event) => Boolean(event.verified) && event.verified !== "none", signs = ({ endpoint }) => may("sign", endpoint);
const mostBytes = () => about.value?.limits?.edit_bytes || MOST;

const drafts = new Map();
/// What an editor holds of an event; made once, so that nothing typed is lost.
function draftOf(event, bytes) {
  if (drafts.has(event.id)) return drafts.get(event.id);
  const text = textOf(bytes), coded = Boolean(event.body?.encoding && event.body.encoding !== "identity");
  const laid = text !== null && !coded && text.length <= MOST ? layout(text) : null;
  const original = { method: event.method, target: event.target, headers: headerText(event.headers ?? []), body: laid?.text ?? text ?? "", form: text === null || coded ? "hex" : "text" };
  if (original.form === "hex") original.body = dump(bytes);
  const draft = { original, bytes, back: laid?.back ?? ((edited) => edited), to: signal(null), sig: signal(signs(event) && isSigned(event) ? "fresh" : "keep"), file: signal(null), ...Object.fromEntries(Object.entries(original).map(([key, value]) => [key, signal(value)])) };
  drafts.set(event.id, draft);
  if (drafts.size > 20) drafts.delete(drafts.keys().next().value);
  return draft;
}

/// The text as it will be sent: on one line again, if it came so and is JSON still.
function written(draft) {
  try {
    return draft.back(draft.body.value);
  } catch {
    return draft.body.value;
  }
}

/// What will be sent, what changed, and what is wrong with it.
function judged(draft, type) {
  const { original } = draft, changes = [], head = headersFrom(draft.headers.value), file = draft.file.value;
  let body = null, wrong = head.message ? `headers, line ${head.line}: ${head.message}` : "", said = "";
  if (draft.method.value !== original.method) changes.push("method");
  if (draft.target.value !== original.target) changes.push("path");
  const count = (now, was, noun) => {
    const n = now === was ? 0 : align(was.split("\n"), now.split("\n")).filter(([a, b]) => a !== b).length;
    if (n) changes.push(plural(n, noun));
  };
  count(draft.headers.value, original.headers, "header");
  const isSame = !file && draft.body.value === original.body && draft.form.value === original.form;
  if (file) body = file.bytes;
  else if (isSame) body = draft.bytes;
  else if (draft.form.value === "hex") {
    const read = undump(draft.body.value);
    body = read.bytes ?? null;
    if (read.message) wrong ||= `body, line ${read.line}: ${read.message}`;
  } else body = new TextEncoder().encode(written(draft));
  const bodyChanged = !isSame && body !== null && (body.length !== draft.bytes.length || body.some((byte, i) => byte !== draft.bytes[i]));
  if (bodyChanged) {
    if (file || draft.form.value === "hex" || original.form === "hex") changes.push("the body");
    else count(draft.body.value, original.body, "line");
  }
  if (body) said = size(body.length);
  if (body && !file && draft.form.value === "text" && (/json/i.test(type) || /^\s*[{[]/.test(draft.body.value)) && draft.body.value.length <= MOST) {
    const found = mistake(draft.body.value);
    said += found ? `, not JSON: line ${found.line}, column ${found.column}: ${found.message}` : ", valid JSON";
  }
  if (body?.length > mostBytes()) wrong ||= `the body is longer than ${size(mostBytes())}, which is the most that can be edited`;
  return { headers: head.headers, body, wrong, said, changes, bodyChanged };
}

function editOf(draft, { headers, body, bodyChanged }) {
  const { original } = draft, edit = {};
  if (draft.method.value !== original.method) edit.method = draft.method.value;
  if (draft.target.value !== original.target) edit.target = draft.target.value;
  if (draft.headers.value !== original.headers) edit.headers = headers;
  if (bodyChanged) {
    const text = draft.file.value || draft.form.value === "hex" ? null : written(draft);
    if (text === null) edit.body_base64 = base64(body);
    else edit.body_text = text;
  }
  return edit;
}

const Edit = live(({ event, draft, onClose }, own) => {
  const type = headerOf(event, "content-type"), now = judged(draft, type), place = draft.all.get(draft.to.value);
  const set = (key) => (typed) => { draft[key].value = typed.currentTarget.value; };
  const go = async () => {
    if (now.wrong || !place || own.busy.value) return;
    own.busy.value = true;
    own.answer.value = null;
    try {
      const edit = editOf(draft, now), isEdited = Object.keys(edit).length > 0;
      const done = await send(event.id, place, { signature: draft.sig.value, body: isEdited ? edit : undefined });
      setTarget(event.endpoint, place);
      own.answer.value = { done, text: outcome(done, place), isGood: !done.outcome || (done.status >= 200 && done.status < 400) };
      if (done.new_id && !done.outcome) own.follow(done.new_id);
    } catch (problem) {
      if (!isAbort(problem)) own.answer.value = { text: problem.message, isGood: false };
    }
    own.busy.value = false;
  };
  const toForm = (form) => {
    if (form === draft.form.value) return;
    const text = now.body && textOf(now.body);
    if (!now.body || (form === "text" && text === null)) return;
    draft.form.value = form;
    draft.body.value = form === "hex" ? dump(now.body) : layout(text)?.text ?? text;
  };
  const answer = own.answer.value, changed = now.changes.length;
  return html`<${Sheet} title="Edit and replay" note=${title(event)} kind="side" onClose=${onClose}
      onKeyDown=${(pressed) => { if (pressed.key === "Enter" && (pressed.ctrlKey || pressed.metaKey)) { pressed.preventDefault(); go(); } }}
      foot=${html`<${Button} cls="main" k="Ctrl ↵" data-first disabled=${Boolean(now.wrong) || !place || own.busy.value} onClick=${go}>Send<//>
        <${Button} disabled=${!changed} onClick=${() => own.reset(draft)}>Undo all<//><span class="grow"></span><span class="dim">${own.busy.value ? "Sending…" : answer ? "Sent; change it and send again" : "Nothing has been sent yet"}</span>`}>
    <div class="two"><label class="f">Method<input class="in" value=${draft.method.value} maxlength="32" onInput=${set("method")} /></label><label class="f">Path behind the endpoint<input class="in" value=${draft.target.value} onInput=${set("target")} /></label></div>
    <label class="f">Headers, in order; a masked one that stays as it is keeps its value<textarea class="in hd" spellcheck=${false} value=${draft.headers.value} onInput=${set("headers")}></textarea></label>
    <div class="f"><div class="tools"><label for="edit-body">Body</label><span class="grow"></span><${Seg} label="Body as" value=${draft.form.value} options=${[["text", "Text"], ["hex", "Hex"]]} onPick=${toForm} />
      <label class="btn small">Upload<input class="vh" type="file" onChange=${(picked) => own.upload(picked.currentTarget.files?.[0], draft)} /></label></div>
      ${draft.file.value ? html`<p class="note">${line(draft.file.value.name)}, ${size(draft.file.value.bytes.length)} <${Button} cls="plain" onClick=${() => { draft.file.value = null; }}>take the text again<//></p>`
      : html`<textarea id="edit-body" class="in" spellcheck=${false} value=${draft.body.value} onInput=${set("body")}></textarea>`}</div>
    <p class=${`note ${now.wrong ? "bad" : ""}`} role="status">${now.wrong || `${now.said}; ${changed ? `changed: ${now.changes.join(", ")}` : "nothing changed yet"}`}</p>
    <fieldset class="opts"><legend>Signature</legend>
      ${!isSigned(event) ? html`<small>Nothing is signed at this endpoint</small>` : html`
      ${signs(event) ? radio("sig", "fresh", draft.sig, "Sign afresh", "with the endpoint’s secret; marked Relay-Resigned") : html`<small>Sign afresh: needs the right sign</small>`}
      ${radio("sig", "keep", draft.sig, "Keep", now.bodyChanged ? "the handler will refuse it: the body differs from what was signed" : "as it came, however old it is")}
      ${!now.bodyChanged && radio("sig", "auto", draft.sig, "As the endpoint says", "kept while it is good, else made anew")}`}</fieldset>
    <${Places} of=${event} all=${draft.all} chosen=${draft.to} />
    <div role="status">${answer && html`<div class="answered"><p class="note"><${Dot} kind=${answer.isGood ? "ok" : "bad"} shape=${answer.isGood ? "" : "tri"} /><b>${answer.text}</b></p>
      ${answer.done?.headers && html`<p class="mono dim cut">${answer.done.headers.map(([name, value]) => `${line(name)}: ${line(value)}`).join("   ")}</p>`}
      ${own.body.value && html`<pre class="mono">${own.body.value}</pre>`}</div>`}</div><//>`;
}, ({ draft }) => {
  const own = { busy: signal(false), answer: signal(null), body: signal("") };
  own.reset = () => {
    for (const [key, value] of Object.entries(draft.original)) draft[key].value = value;
    draft.file.value = null;
  };
  own.upload = async (file) => {
    if (!file) return;
    if (file.size > mostBytes()) {
      own.answer.value = { text: `the file has ${size(file.size)}, more than can be edited`, isGood: false };
      return;
    }
    draft.file.value = { name: file.name, bytes: new Uint8Array(await file.arrayBuffer()) };
  };
  /// The beginning of what the handler answered, as far as it is kept under the new id.
  own.follow = async (id) => {
    own.body.value = "";
    let attempt = null;
    for (let turn = 0; turn < 5 && !attempt; turn++) {
      await new Promise((resolve) => { setTimeout(resolve, 300); });
      attempt = (await call("GET", pathOf(id)).catch(() => null))?.attempts?.at(-1);
    }
    if (!attempt?.answer?.size) return;
    const bytes = await bytesOf(`${pathOf(id)}/attempts/${attempt.number}/body`, 0, 4096, attempt.answer.size).catch(() => null);
    if (bytes) own.body.value = seen(textOf(bytes) ?? dump(bytes.subarray(0, 256)));
  };
  return own;
});

export async function edit(event) {
  const kept = event.body?.kept ?? event.size;
  if (event.size > MOST || kept < event.size) return toast(kept < event.size ? "Its body is not kept whole, so that it cannot be edited" : `Its body has ${size(event.size)}; ${size(MOST)} is the most that can be edited here`);
  const draft = draftOf(event, await bytesOf(`${pathOf(event.id)}/body`, 0, MOST, kept));
  draft.all = places(event);
  if (!draft.all.has(draft.to.value)) draft.to.value = first(event, draft.all);
  return openSheet(Edit, { event, draft });
}
