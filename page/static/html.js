// Preact, htm and signals joined, and the few parts that every page is made of.
//
// It never makes an element from text: a template's holes become text nodes, or attributes and properties set by name.
// Rules: nothing from the relay is spread as properties, and no link out of the page is made from it.

import { Component, Fragment, h, render } from "./vendor/preact.mjs";
import htm from "./vendor/htm.mjs";
import { batch, computed, effect, signal, untracked } from "./vendor/signals-core.mjs";
import { line } from "./text.js";

export { Component, Fragment, batch, computed, effect, h, render, signal, untracked };

export const html = htm.bind(h);

/// A component that is drawn anew when a signal that it read has changed. `setup(props, self)` runs once; what it
/// returns is the view's second argument. It may give `self.mounted`, which runs once the elements are there and may
/// return what ends it.
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

/// A shape that stands beside a word; it says nothing by itself. `on` is for what is there or is not.
export const Dot = ({ on, shape = on === false ? "ring" : "", kind = { true: "ok", false: "off" }[on] ?? "" }) => html`<span class=${`dot ${shape} ${kind}`} aria-hidden="true"></span>`;

/// `cls` is one of main, small and plain; `k` the key that does the same.
export const Button = ({ cls = "", k, children, ...rest }) => html`<button type="button" class=${`btn ${cls}`} ...${rest}>${children}${k && html`<kbd aria-hidden="true">${k}</kbd>`}</button>`;
export const Icon = ({ label, ...rest }) => html`<button type="button" class="icon" aria-label=${label} ...${rest} />`;

/// Terms and what they are: `[term, value, class, class of both]`. Those without a value are left out.
export const Facts = ({ of, cls = "known" }) => html`<dl class=${cls}>${of.map(([term, value, look, wide]) => (value || value === 0) && html`
  <div class=${wide}><dt>${term}</dt><dd class=${look} title=${typeof value === "string" ? line(value) : null}>${typeof value === "string" ? line(value) : value}</dd></div>`)}</dl>`;

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
        <div class="sh"><h1>${title}</h1>${note && html`<span class="dim mono cut">${note}</span>`}<span class="grow"></span>
          ${!fixed && html`<${Icon} label="Close" onClick=${this.close}>✕<//>`}</div>
        <div class="sb">${children}</div>
        ${foot && html`<div class="sf">${foot}</div>`}
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
const sheets = signal([]);
/// Opens what `view` draws, a component with its properties, which get `onClose`. Returns what closes it.
export function openSheet(view, props) {
  const one = {}, close = () => { sheets.value = sheets.value.filter((other) => other !== one); };
  one.view = h(view, { ...props, onClose: props?.onClose ?? close });
  sheets.value = [...sheets.value, one];
  return close;
}
export const Sheets = live(() => sheets.value.map(({ view }, at) => html`<${Fragment} key=${at}>${view}<//>`));

/// Asks once before something that cannot be taken back. Resolves to whether the person agreed.
export const confirm = (title, text, does) => new Promise((resolve) => {
  const end = (yes) => () => { close(); resolve(yes); };
  const close = openSheet(Sheet, { title, kind: "small", onClose: end(false), children: html`<p class="say">${text}</p>`,
    foot: html`<${Button} cls="main" data-first onClick=${end(true)}>${does}<//><${Button} onClick=${end(false)}>Cancel<//>` });
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
  <${Button} onClick=${() => copy(text, what)}>Copy<//></div>`;
