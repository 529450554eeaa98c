// Preact, htm and signals joined, and the few parts that every page is made of.
//
// It never makes an element from text: a template's holes become text nodes, or attributes and properties set by name.
// Rules: nothing from the relay is spread as properties, and no link out of the page is made from it.

import { Component, Fragment, createRef, h, render } from "./vendor/preact.mjs";
import htm from "./vendor/htm.mjs";
import { batch, computed, effect, signal, untracked } from "./vendor/signals-core.mjs";

export { Component, Fragment, batch, computed, createRef, effect, h, render, signal, untracked };

export const html = htm.bind(h);

/// A component that is drawn anew when a signal that it read has changed. `setup(props, self)` runs once; what it
/// returns is the view's second argument. It may give `self.mounted`, which runs once the elements are there and may
/// return what ends it, and `self.drawn`, which runs after each drawing.
export function live(view, setup) {
  return class extends Component {
    constructor(props) {
      super(props);
      this.own = setup ? setup(props, this) : undefined;
    }
    render(props) {
      this.stop?.();
      let out, first = true;
      this.stop = effect(() => {
        if (first) out = view(props, this.own, this);
        else this.setState({});
        first = false;
      });
      return out;
    }
    componentDidMount() {
      this.end = this.mounted?.();
      this.drawn?.();
    }
    componentDidUpdate() {
      this.drawn?.();
    }
    componentWillUnmount() {
      this.stop?.();
      this.end?.();
    }
  };
}

/// A component of a module that is fetched when it is first drawn; until then `waits` stands in its place.
export function lazy(load, name, waits = () => null) {
  const found = signal(null);
  let asked = null;
  return live((props) => {
    asked ??= load().then((module) => { found.value = module[name]; }, () => {
      asked = null;
      toast("A part of the page could not be fetched; is the relay there?");
    });
    return found.value ? h(found.value, props) : waits(props);
  });
}

/// A stylesheet of a part that is fetched later; resolves once it holds.
export const styles = (href) => new Promise((resolve) => {
  const link = document.createElement("link");
  Object.assign(link, { rel: "stylesheet", href, onload: resolve, onerror: resolve });
  document.head.append(link);
});

/// A shape that stands beside a word; it says nothing by itself.
export const Dot = ({ shape = "", kind = "" }) => html`<span class=${`dot ${shape} ${kind}`} aria-hidden="true"></span>`;

/// One of several: `options` are `[value, label]`.
export const Seg = ({ label, options, value, onPick, cls = "", off = [] }) => html`
  <div class=${`seg ${cls}`} role="group" aria-label=${label}>${options.map(([name, text]) => html`
    <button type="button" key=${name} aria-pressed=${String(value === name)} disabled=${off.includes(name)}
      onClick=${() => onPick(name)}>${text}</button>`)}</div>`;

/// A dialog over the page. `Escape` and a click beside it close it; the focus goes back to where it was.
export class Sheet extends Component {
  constructor(props) {
    super(props);
    this.at = (el) => { this.el = el; };
    this.close = (event) => {
      event?.preventDefault?.();
      this.props.onClose?.();
    };
  }
  componentDidMount() {
    this.before = document.activeElement;
    this.el.showModal();
    (this.el.querySelector("[data-first]") ?? this.el.querySelector("input,textarea,button"))?.focus();
  }
  componentWillUnmount() {
    this.el?.close();
    const to = this.before?.isConnected && this.before !== document.body ? this.before : document.querySelector("[data-home]");
    to?.focus({ preventScroll: true });
  }
  render({ title, note, kind = "mid", children, foot, fixed, onKeyDown }) {
    return html`<dialog class=${`sheet ${kind}`} aria-label=${title} ref=${this.at} onCancel=${this.close}
        onKeyDown=${onKeyDown} onMouseDown=${(event) => { if (event.target === this.el && !fixed) this.close(); }}>
      <div class="sheet-in">
        <div class="sh"><h1>${title}</h1>${note ? html`<span class="dim mono cut">${note}</span>` : null}<span class="grow"></span>
          ${fixed ? null : html`<button type="button" class="icon" aria-label="Close" onClick=${this.close}>✕</button>`}</div>
        <div class="sb">${children}</div>
        ${foot ? html`<div class="sf">${foot}</div>` : null}
      </div></dialog>`;
  }
}

/// What has just happened, for some seconds; read out by screen readers.
const said = signal({ text: "", shown: false });
let hides;
export function toast(text) {
  clearTimeout(hides);
  said.value = { text, shown: true };
  hides = setTimeout(() => { said.value = { text: "", shown: false }; }, 4000);
}
export const Toast = live(() => html`<div class=${`toast ${said.value.shown ? "" : "away"}`} role="status">${said.value.text}</div>`);

/// The sheets that are open; the last one is on top.
export const sheets = signal([]);
export function openSheet(view) {
  const one = { view };
  sheets.value = [...sheets.value, one];
  return () => { sheets.value = sheets.value.filter((other) => other !== one); };
}
export const Sheets = live(() => sheets.value.map((one, at) => html`<${Fragment} key=${at}>${one.view()}<//>`));

/// Asks once before something that cannot be taken back. Resolves to whether the person agreed.
export const confirm = (title, text, does) => new Promise((resolve) => {
  const end = (yes) => { close(); resolve(yes); };
  const close = openSheet(() => html`<${Sheet} title=${title} kind="small" onClose=${() => end(false)} foot=${html`
    <button type="button" class="btn main" data-first onClick=${() => end(true)}>${does}</button>
    <button type="button" class="btn" onClick=${() => end(false)}>Cancel</button>`}><p class="say">${text}</p><//>`);
});

export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`${what} copied`);
  } catch {
    toast(`${what} could not be copied: the browser refuses the clipboard here`);
  }
}

/// A command or an address that can be copied.
export const Cmd = ({ text, what = "The command" }) => html`<div class="cmd"><code tabindex="0">${text}</code>
  <button type="button" class="btn" onClick=${() => copy(text, what)}>Copy</button></div>`;
