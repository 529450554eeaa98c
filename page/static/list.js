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
const put = (el, text) => { if (el.textContent !== text) el.textContent = text; };

/// `on` has `pick(row)`, `open(row)`, `mark(row, range)`, `top()`, `bottom()`; `rows()` gives what is shown.
export function mountList({ rows, on, marked }) {
  const el = make("div", "rows", "grid"), pad = make("div", "pad", "rowgroup"), pool = [];
  el.tabIndex = 0;
  el.dataset.home = "";
  el.setAttribute("aria-label", "Events, newest first");
  el.append(pad);
  let asked = false, selected = "", height = 28, anchor = null;

  function newRow() {
    const row = make("div", "row cols", "row"), cells = {};
    for (const [name, cls] of [["x", "x"], ["t", "t mono"], ["st", "st"], ["e", "e"], ["ty", "ty"], ["p", "p mono"], ["d", "d num"], ["sz", "sz num dim"], ["m", "m"], ["ag", "ag"]]) {
      row.append(cells[name] = make("span", cls, "gridcell"));
    }
    cells.box = make("i");
    cells.said = make("span", "vh");
    cells.x.append(cells.box, cells.said);
    cells.icon = make("span", "dot");
    cells.icon.setAttribute("aria-hidden", "true");
    cells.code = document.createTextNode("");
    cells.st.append(cells.icon, cells.code);
    cells.took = document.createTextNode("");
    cells.share = make("i");
    cells.d.append(cells.took, cells.share);
    row.addEventListener("click", (event) => {
      if (!row.of) return;
      if (event.target.closest(".x") || event.metaKey || event.ctrlKey) on.mark(row.of, false);
      else if (event.shiftKey) on.mark(row.of, true);
      else on.pick(row.of);
    });
    row.addEventListener("dblclick", () => row.of && on.open(row.of));
    return Object.assign(row, { cells });
  }

  function fill(el, row) {
    const { cells } = el, seems = look(row), used = patience(row.patience), signs = notes(row);
    el.dataset.k = seems.kind;
    cells.icon.className = `dot ${seems.shape}`;
    cells.code.data = status(row);
    cells.st.title = row.status ? `${seems.word}, ${row.status}` : seems.word;
    put(cells.t, clock(row.received_at));
    cells.t.title = full(row.received_at);
    put(cells.e, line(row.endpoint));
    put(cells.ty, title(row));
    put(cells.p, line(row.target));
    cells.p.title = cells.p.textContent;
    cells.took.data = dur(row.took_us);
    cells.share.style.width = used ? `${Math.round(used.share * 100)}%` : "0";
    cells.share.className = used?.kind ?? "";
    cells.d.title = row.patience ? `${percent(row.patience)} of the sender’s patience` : "";
    put(cells.sz, size(row.size));
    put(cells.m, signs.map(([sign]) => sign).join(" "));
    cells.m.title = signs.map(([, what]) => what).join(", ");
    put(cells.ag, line(row.agent ?? ""));
  }

  function draw() {
    asked = false;
    const list = rows(), n = list.length;
    height = parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row")) || 28;
    pad.style.height = `${n * height}px`;
    el.setAttribute("aria-rowcount", String(n));
    if (anchor && el.scrollTop > 3) {
      const at = list.has(anchor.id) ? list.indexOf(anchor.id) : -1;
      if (at >= 0) el.scrollTop = at * height + anchor.rest;
    }
    const top = Math.max(0, Math.floor(el.scrollTop / height) - SPARE);
    const shown = Math.max(0, Math.min(n - top, Math.ceil(el.clientHeight / height) + 2 * SPARE));
    while (pool.length < shown) {
      const row = newRow();
      pool.push(row);
      pad.append(row);
    }
    const now = performance.now();
    // A row keeps its place in the pool while it is in sight, so that nothing but new ones is written.
    for (let k = 0; k < pool.length; k++) {
      const slot = pool[k], turn = pool.length ? top % pool.length : 0, i = top + ((k - turn + pool.length) % pool.length);
      const row = i < top + shown ? list.at(i) : null;
      slot.hidden = !row;
      if (!row) {
        slot.of = null;
        slot.removeAttribute("id");
        continue;
      }
      slot.style.transform = `translateY(${i * height}px)`;
      slot.setAttribute("aria-rowindex", String(i + 1));
      slot.setAttribute("aria-selected", String(row.id === selected));
      const isMarked = marked.has(row.id);
      slot.classList.toggle("marked", isMarked);
      put(slot.cells.said, isMarked ? "marked" : "");
      const newer = i > 0 ? list.at(i - 1) : null, turns = newer && day(newer.received_at) !== day(row.received_at);
      if (turns) slot.dataset.day = day(row.received_at);
      else delete slot.dataset.day;
      const waits = row.state === "waiting" || row.state === "pending";
      if (slot.of !== row || slot.v !== row.v || waits) fill(slot, row);
      slot.classList.toggle("new", row.born !== undefined && now - row.born < 1600);
      if (slot.of !== row) slot.id = `r-${slot.dataset.id = row.id}`;
      slot.of = row;
      slot.v = row.v;
    }
    if (list.has(selected)) el.setAttribute("aria-activedescendant", `r-${selected}`);
    else el.removeAttribute("aria-activedescendant");
    hold();
    if (n && top + shown >= n - SPARE) on.bottom();
    if (el.scrollTop < 4) on.top();
  }

  /// Notes which row is the first in sight, and by how much.
  function hold() {
    const at = Math.floor(el.scrollTop / height), row = rows().at(at);
    anchor = row ? { id: row.id, rest: el.scrollTop - at * height } : null;
  }

  const ask = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(draw);
  };
  el.addEventListener("scroll", () => { hold(); ask(); }, { passive: true });
  const sizes = new ResizeObserver(ask);
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
      const i = rows().indexOf(id), y = i * height;
      if (i < 0 || i >= rows().length) return;
      pad.style.height = `${rows().length * height}px`;
      if (inMiddle) el.scrollTop = y - el.clientHeight / 2;
      else if (y < el.scrollTop) el.scrollTop = y;
      else if (y + height > el.scrollTop + el.clientHeight) el.scrollTop = y + height - el.clientHeight;
      hold();
    },
    toTop() {
      anchor = null;
      el.scrollTop = 0;
      ask();
    },
    isAtTop: () => el.scrollTop < 4,
    page: () => Math.max(1, Math.floor(el.clientHeight / height) - 1),
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
