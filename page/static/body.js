// A body: pretty, raw or as bytes. It is fetched in pieces and drawn in slices, so that no body stops the page.
//
// Pretty is for at most 1 MiB and 20,000 lines; what is longer is shown in windows. At most 32 MB of bodies are held, the
// oldest go. The sender's content type decides how a body is read, never how the browser treats it.

import { Problem, ask, isAbort } from "./api.js";
import { Button, Component, Seg, copy, html, toast } from "./html.js";
import { dump, hexLine, textOf } from "./hex.js";
import { terms } from "./judge.js";
import { lines as jsonLines } from "./json.js";
import { boundary, fieldsOf, partsOf, xmlLines } from "./multipart.js";
import { line, seen, size } from "./text.js";

const PRETTY = 1_048_576, MAX_LINES = 20_000, HELD = 32_000_000, DECODED = 8_388_608, RAW = 262_144, HEX = 65_536, SLICE_MS = 8, BLOCK = 12_000, LONG = 4096;

const held = new Map();
let heldBytes = 0;
function remember(key, bytes) {
  held.delete(key);
  held.set(key, bytes);
  heldBytes = [...held.values()].reduce((all, one) => all + one.length, 0);
  for (const [oldest, one] of held) {
    if (heldBytes <= HELD || oldest === key) break;
    held.delete(oldest);
    heldBytes -= one.length;
  }
}

const joined = async (pieces) => new Uint8Array(await new Blob(pieces).arrayBuffer());

/// Bytes of a body from `from` on, `most` of them at most.
export async function bytesOf(path, from, most, total, signal) {
  const key = `${path}@${from}+${most}`;
  const pieces = [];
  for (let got = 0, part; !held.has(key) && got < most && from + got < total && part?.length !== 0; got += part.length) {
    const answer = await ask("GET", path, { headers: { Accept: "application/octet-stream", Range: `bytes=${from + got}-${from + most - 1}` }, signal });
    pieces.push(part = new Uint8Array(await answer.arrayBuffer()));
  }
  const bytes = held.get(key) ?? (await joined(pieces)).subarray(0, most);
  remember(key, bytes);
  return bytes;
}

/// What a coding hid, at most 8 MiB of it: `{bytes, cut}`.
async function decoded(bytes, coding) {
  const format = { gzip: "gzip", "x-gzip": "gzip", deflate: "deflate" }[coding.toLowerCase()];
  if (!format) throw new Problem({ message: `the page cannot read the coding ${line(coding)}` });
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream(format)).getReader(), pieces = [];
  for (let got = 0; got < DECODED; got += pieces.at(-1).length) {
    const { value, done } = await reader.read();
    if (done) return { bytes: await joined(pieces) };
    pieces.push(value);
  }
  reader.cancel();
  return { bytes: (await joined(pieces)).subarray(0, DECODED), cut: true };
}

function textFrom(bytes, charset) {
  try {
    return new TextDecoder(charset || "utf-8").decode(bytes);
  } catch {
    return new TextDecoder().decode(bytes);
  }
}

const CLASS = { key: "jk", string: "js", number: "jn", word: "jn" };

function* plainLines(text) {
  for (const one of text.split(/\r?\n/)) yield { depth: 0, parts: [["", one]] };
}

/// Lines of which none is too long to be laid out: what is longer goes on in another, without a number.
function* cut(lines) {
  for (const one of lines) {
    let row = { ...one, parts: [], length: 0 };
    for (const [kind, text] of one.parts) {
      for (let from = 0; from === 0 || from < text.length;) {
        const piece = text.slice(from, from + Math.max(1, LONG - row.length));
        row.parts.push([kind, piece]);
        row.length += piece.length;
        from += piece.length || 1;
        if (row.length < LONG || from >= text.length) continue;
        yield row;
        row = { ...one, goesOn: true, parts: [], length: 0 };
      }
    }
    yield row;
  }
}

function* formLines(text) {
  for (const [name, value] of fieldsOf(text)) yield { depth: 0, parts: [["key", name], ["", "  "], ["string", value]] };
}

function* byteLines(bytes, base) {
  for (let from = 0; from < bytes.length; from += 16) {
    const [offset, digits, text] = hexLine(bytes, from, base);
    yield { depth: 0, number: offset, isHex: true, parts: [["", `${digits}  ${text}`]] };
  }
}

/// The lines of a text by its type.
function prettyLines(text, contentType) {
  const type = (contentType ?? "").toLowerCase(), start = text.trimStart();
  if (/\bxml\b/.test(type) || (!/json|html/.test(type) && start.startsWith("<?xml"))) return xmlLines(text);
  if (/x-www-form-urlencoded/.test(type)) return formLines(text);
  return /json/.test(type) || /^[{[]/.test(start) ? jsonLines(text) : plainLines(text);
}

/// Draws lines into an element until they end, in slices; `words` are marked.
class Lines extends Component {
  constructor(props) {
    super(props);
    this.at = (el) => { this.el = el; };
  }
  shouldComponentUpdate(next) {
    if (next.of !== this.props.of || next.words !== this.props.words) queueMicrotask(() => this.start());
    return false;
  }
  componentDidMount() { this.start(); }
  componentWillUnmount() { this.turn = null; }
  async start() {
    const turn = (this.turn = {}), { of, words, onNote } = this.props, source = cut(of());
    let count = 0, block = null, shown = 0, inBlock = 0, until = performance.now() + SLICE_MS;
    this.el?.replaceChildren();
    try {
      for (const one of source) {
        if (!block || inBlock > BLOCK) {
          block = document.createElement("div");
          block.className = "block";
          this.el.append(block);
          inBlock = 0;
        }
        // A block that is not in sight is not laid out: it has about as much text as a screen.
        inBlock += 40 + one.length;
        shown++;
        if (!one.goesOn) count++;
        block.append(...drawn(one, one.number ?? (one.goesOn ? "" : String(count)), words));
        if (shown >= MAX_LINES) return onNote?.(`only the first ${MAX_LINES.toLocaleString("en")} lines are shown; Raw has the rest`);
        if (performance.now() < until) continue;
        await new Promise((resolve) => { requestAnimationFrame(() => setTimeout(resolve)); });
        if (this.turn !== turn || !this.el?.isConnected) return null;
        until = performance.now() + SLICE_MS;
      }
    } catch (error) {
      if (this.turn === turn) onNote?.(error.line ? `line ${error.line}, column ${error.column}: ${error.message}` : error.message, true);
    }
    return null;
  }
  render({ label }) {
    return html`<pre class="body" tabindex="0" role="group" aria-label=${label} ref=${this.at}></pre>`;
  }
}

function drawn({ depth, parts, isHex }, number, words) {
  const ln = document.createElement("span"), tx = document.createElement("span");
  ln.className = "ln";
  ln.textContent = number;
  tx.className = isHex ? "tx hex" : "tx";
  if (depth) tx.append("  ".repeat(depth));
  for (const [kind, text] of parts) {
    let into = tx;
    if (CLASS[kind]) {
      into = document.createElement("span");
      into.className = CLASS[kind];
      tx.append(into);
    }
    marked(into, seen(text), words);
  }
  return [ln, tx];
}

function marked(into, text, words) {
  if (!words) return into.append(text);
  let from = 0;
  for (const match of text.matchAll(words)) {
    const el = document.createElement("mark");
    el.textContent = match[0];
    into.append(text.slice(from, match.index), el);
    from = match.index + match[0].length;
  }
  return into.append(text.slice(from));
}

/// What of a query is to be marked in a text, as a pattern; null for nothing. One object for one query.
let lastQuery = null, lastWords = null;
export function wordsOf(query) {
  if (query === lastQuery) return lastWords;
  const found = terms(query ?? "").filter((term) => !term.not && (!term.key || term.key === "body" || term.key === "answer")).flatMap((term) => term.values).filter(Boolean);
  const isCased = found.some((word) => word !== word.toLowerCase());
  lastQuery = query;
  lastWords = found.length ? new RegExp(found.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|"), isCased ? "g" : "gi") : null;
  return lastWords;
}

/// Saves bytes as a file, whatever they are.
export function download(bytes, name) {
  const link = document.createElement("a"), url = URL.createObjectURL(new Blob([bytes], { type: "application/octet-stream" }));
  link.href = url;
  link.download = name.replace(/[^\w.-]+/g, "_").slice(0, 120) || "body.bin";
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/// `path` of the bytes, `kept` of `total` bytes, `type`, `coding`, `charset`; `form` is pretty, raw or hex.
export class Body extends Component {
  constructor(props) {
    super(props);
    this.state = { bytes: null, plain: null, problem: null, note: "", from: 0 };
    this.noted = (note, isMistake) => this.setState({ note: isMistake ? `not what its type says: ${note}` : note });
  }
  componentDidMount() { this.load(0); }
  componentDidUpdate(before) {
    if (before.path !== this.props.path || before.kept !== this.props.kept) this.load(0);
    else if (before.form !== this.props.form && this.props.kept > PRETTY) this.load(0);
    else if (before.form !== this.props.form && this.state.note) this.setState({ note: "" });
  }
  componentWillUnmount() { this.ends?.abort(); }
  async load(from) {
    this.ends?.abort();
    const ends = (this.ends = new AbortController()), { path, kept, coding, form } = this.props;
    const most = kept <= PRETTY ? PRETTY : form === "hex" ? HEX : RAW;
    this.setState({ bytes: null, plain: null, problem: null, note: "", from });
    if (!kept) return this.setState({ bytes: new Uint8Array(0), plain: new Uint8Array(0) });
    try {
      const bytes = await bytesOf(path, from, most, kept, ends.signal);
      let plain = bytes, note = "";
      if (coding && coding !== "identity" && kept <= PRETTY) {
        const found = await decoded(bytes, coding).catch((problem) => ({ problem }));
        plain = found.bytes;
        note = plain ? `decoded from ${line(coding)}, ${size(plain.length)}${found.cut ? " of more" : ""}` : `cannot be decoded: ${found.problem.message}`;
      }
      if (!ends.signal.aborted) this.setState({ bytes, plain, note });
    } catch (problem) {
      if (!isAbort(problem)) this.setState({ problem });
    }
    return null;
  }
  /// What is drawn: remade only when what it is made of changes, so that nothing is drawn twice.
  lines(form, bytes, plain) {
    const { type, charset } = this.props, { from } = this.state, key = [form, bytes, plain, type];
    if (this.drawn?.key.every((one, i) => one === key[i])) return this.drawn.of;
    const of = { hex: () => byteLines(bytes, from), raw: () => plainLines(textFrom(bytes, charset)), pretty: () => prettyLines(textFrom(plain, charset), type) }[form];
    this.drawn = { key, of };
    return of;
  }
  render({ kept, total, type, charset, form: wanted, onForm, query, name, children, why }, { bytes, plain, problem, note, from }) {
    const mark = boundary(type), long = kept > PRETTY, isText = bytes && ((charset && !/^utf-?8$/i.test(charset)) || textOf(bytes.subarray(0, RAW)) !== null || cutText(bytes));
    const canPretty = !long && plain && (mark || textOf(plain) !== null || isText);
    let form = wanted || (!bytes || canPretty ? "pretty" : isText ? "raw" : "hex");
    if (form === "pretty" && bytes && !canPretty) form = isText ? "raw" : "hex";
    const step = form === "hex" ? HEX : RAW, label = `Body, ${form}`;
    return html`<div><div class="tools"><${Seg} label="Form" value=${form} options=${[["pretty", "Pretty"], ["raw", "Raw"], ["hex", "Hex"]]} off=${bytes && !canPretty ? ["pretty"] : []} onPick=${onForm} />
        <span class="mono dim cut">${line(type || (total ? "no content type" : ""))}</span><span class="grow"></span>${children}
        ${bytes?.length > 0 && html`<${Button} cls="small" onClick=${() => this.copy(form)}>Copy<//>`}</div>
      ${note && html`<p class="note">${note}</p>`}
      ${kept < total && html`<p class="note">${why || (kept ? `The first ${size(kept)} of ${size(total)} are kept.` : "Nothing of it is kept.")}</p>`}
      ${problem ? html`<p class="none">${problem.message}</p>` : !bytes ? html`<p class="none" aria-busy="true">Loading…</p>` : !bytes.length ? !total && html`<p class="none">No body.</p>`
      : form === "pretty" && mark ? html`<${Parts} parts=${partsOf(plain, mark)} name=${name} words=${wordsOf(query)} />`
      : html`<${Lines} key=${form + from} of=${this.lines(form, bytes, plain)} words=${wordsOf(query)} label=${label} onNote=${this.noted} />`}
      ${long && bytes && html`<div class="tools"><span class="dim">bytes ${from.toLocaleString("en")} to ${(from + bytes.length).toLocaleString("en")} of ${kept.toLocaleString("en")}</span>
        <${Button} cls="small" disabled=${from === 0} onClick=${() => this.load(Math.max(0, from - step))}>Before<//>
        <${Button} cls="small" disabled=${from + bytes.length >= kept} onClick=${() => this.load(from + step)}>After<//></div>`}</div>`;
  }
  async copy(form) {
    const { path, kept, charset } = this.props, { plain } = this.state;
    if (kept > DECODED) return toast("It is too long to be copied; save it instead");
    const bytes = await bytesOf(path, 0, DECODED, kept).catch((problem) => toast(problem.message));
    if (!bytes) return null;
    const shown = form === "pretty" && plain ? plain : bytes;
    return copy(form === "hex" || (textOf(shown) === null && !charset) ? dump(shown) : textFrom(shown, charset), "The body");
  }
}

/// Whether a window ends within a character, and is text otherwise.
const cutText = (bytes) => [1, 2, 3].some((less) => bytes.length > less && textOf(bytes.subarray(0, Math.min(bytes.length, RAW) - less)) !== null);

const MAX_PART = 65_536;
const Parts = ({ parts, name, words }) => (parts.length ? parts.map((part, i) => html`<div class="piece" key=${i}>
  <div class="tools"><b>${line(part.name ?? `part ${i + 1}`)}</b>${part.filename && html`<span class="mono">${line(part.filename)}</span>`}<span class="mono dim cut">${line(part.type)}</span><span class="dim">${size(part.bytes.length)}</span><span class="grow"></span>
    <${Button} cls="small" onClick=${() => download(part.bytes, part.filename || `${name}-${i + 1}.bin`)}>Save<//></div>
  <${Part} part=${part} words=${words} label=${`Part ${i + 1}`} /></div>`) : html`<p class="none">It has no parts that can be read; Raw and Hex show it.</p>`);

class Part extends Component {
  constructor(props) {
    super(props);
    const bytes = props.part.bytes.subarray(0, MAX_PART), text = textOf(bytes);
    this.of = () => (text === null ? byteLines(bytes.subarray(0, 1024), 0) : prettyLines(text, props.part.type));
  }
  render({ words, label }) { return html`<${Lines} of=${this.of} words=${words} label=${label} />`; }
}
