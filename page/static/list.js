// The list: a pool of rows for what is in sight, moved by hand.
//
// It knows nothing of the relay or the address: rows come in as `rows`, what a person does goes out as calls. What is on
// screen does not move when rows come on top, unless the list stands at its top. Texts are written into text nodes.

import { clock, count, day, dur, full, isFailure, line, look, notes, patience, percent, size, status, title } from "./text.js";

const SPARE = 8;
const make = (tag, cls, role) => {
  const el = document.createElement(tag);
  if (cls) el.className = cls;
  if (role) el.setAttribute("role", role);
  return el;
};
/// Writes into the one text node of an element, which stays: rows come by the thousand.
const put = ({ firstChild: node }, text) => { if (node.data !== text) node.data = text; };

/// `on` has `pick(row)`, `open(row)`, `mark(row, range)`, `top()`, `bottom()`; `rows()` gives what is shown.
export function mountList({ rows, on, marked }) {
  const el = make("div", "rows", "grid"), pad = make("div", "pad"), sight = make("div", "", "rowgroup"), pool = [];
  el.tabIndex = 0;
  el.dataset.home = "";
  el.setAttribute("aria-label", "Events, newest first");
  el.append(pad);
  pad.append(sight);
  // Where the list stands and how much of it is in sight are noted as they change: to ask for them while rows are
  // written would have the browser lay out all of them at once.
  let asked = false, selected = "", height = 28, y = 0, tall = 0, anchor = null;

  function newRow() {
    const row = make("div", "row cols", "row"), cells = {};
    for (const cls of ["x", "t mono", "st", "e", "ty", "p mono", "d num", "sz num dim", "m", "ag"]) {
      row.append(cells[cls.split(" ")[0]] = make("span", cls, "gridcell"));
    }
    cells.said = make("span", "vh");
    cells.x.append(make("i"), cells.said);
    cells.icon = make("span", "dot");
    cells.icon.setAttribute("aria-hidden", "true");
    cells.code = make("span");
    cells.st.append(cells.icon, cells.code);
    cells.share = make("i");
    for (const name of ["said", "code", "t", "e", "ty", "p", "d", "sz", "m", "ag"]) cells[name].append("");
    cells.d.append(cells.share);
    row.addEventListener("click", (event) => {
      if (!row.of) return;
      if (event.target.closest(".x") || event.metaKey || event.ctrlKey) on.mark(row.of, false);
      else if (event.shiftKey) on.mark(row.of, true);
      else on.pick(row.of);
    });
    row.addEventListener("dblclick", () => row.of && on.open(row.of));
    row.addEventListener("pointerenter", () => row.of && entitle(row));
    return Object.assign(row, { cells });
  }

  function fill({ cells, dataset }, row) {
    const seems = look(row), used = patience(row.patience);
    dataset.k = seems.kind;
    cells.icon.className = `dot ${seems.shape}`;
    put(cells.code, status(row));
    cells.st.title = row.status ? `${seems.word}, ${row.status}` : seems.word;
    put(cells.t, clock(row.received_at));
    put(cells.e, line(row.endpoint));
    put(cells.ty, title(row));
    put(cells.p, line(row.target));
    put(cells.d, dur(row.took_us));
    cells.share.style.width = used ? `${Math.round(used.share * 100)}%` : "0";
    cells.share.className = used?.kind ?? "";
    put(cells.sz, size(row.size));
    put(cells.m, notes(row).map(([sign]) => sign).join(" "));
    put(cells.ag, line(row.agent ?? ""));
  }

  /// What is told of a row where a pointer rests.
  function entitle({ of: row, cells }) {
    cells.t.title = full(row.received_at);
    cells.p.title = cells.p.textContent;
    cells.d.title = row.patience ? `${percent(row.patience)} of the sender’s patience` : "";
    cells.m.title = notes(row).map(([, what]) => what).join(", ");
  }

  const dayOf = (row) => (row.day ??= day(row.received_at));

  function show(slot, row, i, list) {
    slot.hidden = !row;
    if (!row) {
      slot.of = null;
      for (const name of ["id", "data-id", "aria-selected"]) slot.removeAttribute(name);
      return;
    }
    slot.setAttribute("aria-rowindex", String(i + 1));
    slot.setAttribute("aria-selected", String(row.id === selected));
    const isMarked = marked.has(row.id), newer = i > 0 ? list.at(i - 1) : null;
    slot.classList.toggle("marked", isMarked);
    put(slot.cells.said, isMarked ? "marked" : "");
    if (newer && dayOf(newer) !== dayOf(row)) slot.dataset.day = dayOf(row);
    else delete slot.dataset.day;
    const waits = row.state === "waiting" || row.state === "pending";
    if (slot.of !== row || slot.v !== row.v || waits) fill(slot, row);
    slot.classList.toggle("new", row.tint > performance.now());
    if (slot.of !== row) slot.id = `r-${slot.dataset.id = row.id}`;
    slot.of = row;
    slot.v = row.v;
  }

  /// Slots that are out of sight at one end come in at the other, so that a row in sight keeps its slot and is not written
  /// again, and slots stand in the order of what is seen.
  function turn(list, top, many) {
    const down = pool.findIndex((slot) => slot.of && slot.of === list.at(top)), first = pool[0]?.of;
    const up = down < 0 && first && list.has(first.id) ? list.indexOf(first.id) - top : 0;
    if (down > 0) sight.append(...pool.slice(0, down));
    else if (up > 0 && up < many) sight.prepend(...pool.slice(-up));
    else return;
    pool.splice(0, pool.length, ...sight.children);
  }

  function draw() {
    asked = false;
    const list = rows(), n = list.length;
    if (!tall) measure(el.clientHeight);
    pad.style.height = `${n * height}px`;
    el.setAttribute("aria-rowcount", String(n));
    if (anchor && y > 3 && list.has(anchor.id)) {
      const to = list.indexOf(anchor.id) * height + anchor.rest;
      if (to !== y) y = el.scrollTop = to;
    }
    const top = Math.max(0, Math.min(n, Math.floor(y / height) - SPARE)), many = Math.min(n - top, Math.ceil(tall / height) + 2 * SPARE);
    while (pool.length < many) {
      pool.push(newRow());
      sight.append(pool.at(-1));
    }
    sight.style.transform = `translateY(${top * height}px)`;
    turn(list, top, many);
    for (const [k, slot] of pool.entries()) show(slot, k < many ? list.at(top + k) : null, top + k, list);
    if (pool.some(({ of: row }) => row?.id === selected)) el.setAttribute("aria-activedescendant", `r-${selected}`);
    else el.removeAttribute("aria-activedescendant");
    hold();
    if (n && top + many >= n - SPARE) on.bottom();
    if (y < 4) on.top();
  }

  /// Notes which row is the first in sight, and by how much.
  function hold() {
    const at = Math.floor(y / height), row = rows().at(at);
    anchor = row ? { id: row.id, rest: y - at * height } : null;
  }

  function measure(now) {
    height = parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row")) || 28;
    // A list that was not shown stands at its top when it comes back.
    if (!tall && now) el.scrollTop = y;
    tall = now;
  }

  const ask = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(draw);
  };
  el.addEventListener("scroll", () => {
    y = el.scrollTop;
    hold();
    ask();
  }, { passive: true });
  const sizes = new ResizeObserver(() => {
    measure(el.clientHeight);
    ask();
  });
  sizes.observe(el);
  const ticks = setInterval(() => { if (!document.hidden && pool.some((slot) => slot.of?.next_try)) ask(); }, 1000);

  return {
    el,
    ask,
    select(id) {
      selected = id;
      ask();
    },
    reveal(id, inMiddle = false) {
      const i = rows().indexOf(id), at = i * height;
      if (i < 0 || i >= rows().length) return;
      pad.style.height = `${rows().length * height}px`;
      if (inMiddle) el.scrollTop = at - el.clientHeight / 2;
      else if (at < el.scrollTop) el.scrollTop = at;
      else if (at + height > el.scrollTop + el.clientHeight) el.scrollTop = at + height - el.clientHeight;
      y = el.scrollTop;
      hold();
    },
    toTop() {
      anchor = null;
      y = el.scrollTop = 0;
      ask();
    },
    isAtTop: () => y < 4,
    page: () => Math.max(1, Math.floor(tall / height) - 1),
    end() {
      sizes.disconnect();
      clearInterval(ticks);
    },
  };
}

/// The next failure from a place, downwards or upwards; -1 where there is none.
export function failureFrom(list, index, step) {
  for (let i = index + step; i >= 0 && i < list.length; i += step) if (isFailure(list.at(i))) return i;
  return -1;
}

export const pillText = (n) => `↑ ${count(n)} new ${n === 1 ? "event" : "events"}`;
