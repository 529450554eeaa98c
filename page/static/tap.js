// The agent's tap: what went through it since it started, as its handler's socket saw it. On the agent's page only.
//
// It asks the agent alone, so it works while the link is down. Bodies are shown as text, to 64 KiB.

import { ask } from "./api.js";
import { Dot, html, live, signal } from "./html.js";
import { act, asks, Button, Facts, question, Table } from "./rooms.js";
import { clock, dur, line, seen, size } from "./text.js";

const NEWEST = 50, SHOWN = 65_536;

const Body = live(({ of }, own) => own.text.value === null ? html`<p class="dim">${of.size ? "Asking the agent…" : "It is empty."}</p>`
  : html`<pre class="said" tabindex="0">${own.text.value}</pre>${of.size > SHOWN ? html`<p class="dim">The first ${size(SHOWN)} of ${size(of.size)}.</p>` : null}`,
({ path, of }, self) => {
  const own = { text: signal(null) };
  self.mounted = () => {
    if (!of.kept) return;
    ask("GET", path).then((answer) => answer.arrayBuffer()).then(
      (bytes) => { own.text.value = seen(new TextDecoder().decode(bytes.slice(0, SHOWN))); },
      (problem) => { own.text.value = line(problem.message); });
  };
  return own;
});

const Headers = ({ list, masked = [] }) => list?.length ? html`<ul class="plain lines mono">${list.map(([name, value], at) => html`<li key=${at}><span class="dim">${line(name)}</span><span class="wrap">${masked.includes(name) ? "masked" : line(value)}</span></li>`)}</ul>` : null;

const One = ({ of, onClose }) => {
  const path = `/agent/exchanges/${encodeURIComponent(of.event_id)}/${of.number}`;
  return html`<section class="part tapped" aria-label="An exchange"><div class="gh"><h3>${line(of.method)} <span class="mono">${line(of.target)}</span></h3><span class="grow"></span><${Button} onClick=${onClose}>Close<//></div>
    <${Facts} of=${[["event", line(of.event_id), true], ["attempt", of.attempt], ["called after", dur(of.called_us)], ["request was there after", dur(of.sent_us)], ["answer began after", dur(of.head_us)], ["ended after", dur(of.ended_us)],
      ["request, SHA-256", of.request.sha256, true], ["answer, SHA-256", of.answer.sha256, true], ["why there is no answer", of.error ? line(of.error) : null]]} />
    <h3>Request, ${size(of.request.size)}</h3><${Headers} list=${of.headers} masked=${of.masked} /><${Body} key=${`${of.number} request`} of=${of.request} path=${`${path}/request`} />
    <h3>Answer${of.status ? ` ${of.status}` : ""}, ${size(of.answer.size)}</h3><${Headers} list=${of.answer_headers} masked=${of.masked} /><${Body} key=${`${of.number} answer`} of=${of.answer} path=${`${path}/answer`} /></section>`;
};

export const Tapped = live((props, own) => {
  const list = own.asked.data.value?.exchanges ?? [], open = own.open.value;
  if (!list.length) return html`<p class="dim">Nothing came yet.</p>`;
  return html`${open ? html`<${One} key=${open.number} of=${open} onClose=${() => { own.open.value = null; }} />` : null}
    <${Table} caption="Exchanges of this agent, the newest first" columns=${[["time"], ["answer"], ["endpoint"], ["request"], ["took", "num w"], ["size", "num w"]]}>
    ${list.map((of) => html`<tr key=${of.number}><td class="mono">${clock(of.came_at)}</td>
      <td><span class="named"><${Dot} kind=${of.status && of.status < 400 ? "ok" : "bad"} shape=${of.status && of.status < 400 ? "" : "tri"} />${of.status ?? "none"}</span></td><td>${line(of.endpoint)}</td>
      <th scope="row"><button type="button" class="btn plain wrap" aria-expanded=${String(open?.number === of.number)} onClick=${() => own.show(of)}>${line(of.method)} ${line(of.target)}</button></th>
      <td class="num w">${dur(of.duration_us)}</td><td class="num w">${size(of.request.size)}</td></tr>`)}<//>`;
}, (props, self) => {
  const own = { open: signal(null), asked: question("/agent/exchanges", { query: { limit: NEWEST }, types: ["exchanges"], every_s: 3 }) };
  own.show = async (of) => {
    const found = await act("GET", `/agent/exchanges/${encodeURIComponent(of.event_id)}`, {});
    own.open.value = found?.exchanges?.find((one) => one.number === of.number) ?? of;
  };
  asks(self, own.asked);
  return own;
});
