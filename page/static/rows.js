// Rows of events in the order of their ids, which is that of time. Pure: no DOM, no calls.
//
// The oldest stands first, so that new ones are pushed and an index from the end goes on naming the same row. At most
// `max` rows are held, what five minutes bring at 100 a second; beyond that the oldest go, and `cut` says so. A row is one
// object for as long as it is held: a newer state is written into it, and its `v` rises.

export class Rows {
  constructor(max = 30_000) {
    this.max = max;
    this.list = [];
    this.known = new Map();
    this.cut = false;
  }

  get length() { return this.list.length; }
  /// Counted from the newest.
  at(index) { return this.list[this.list.length - 1 - index]; }
  has(id) { return this.known.has(id); }
  row(id) { return this.known.get(id); }

  /// The place of an id, counted from the newest; of one that is not there, the place where it would stand.
  indexOf(id) { return this.list.length - 1 - this.#place(id); }

  #place(id) {
    let low = 0, high = this.list.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.list[middle].id < id) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /// Takes newer states of rows that are held; `force` where the relay was started anew and counts from the beginning.
  update(rows, force = false) {
    let changed = 0;
    for (const row of rows) {
      const held = this.known.get(row.id);
      if (!held || (!force && (row.rev ?? 0) < (held.rev ?? 0))) continue;
      Object.assign(held, row);
      held.v++;
      changed++;
    }
    return changed;
  }

  /// Takes rows of any age, held or not. Returns those that are new.
  put(rows, force = false) {
    this.update(rows, force);
    const fresh = [], older = [], first = this.list[0]?.id, seen = new Set();
    for (const row of rows) {
      if (this.known.has(row.id) || seen.has(row.id) || typeof row.id !== "string") continue;
      seen.add(row.id);
      (first !== undefined && row.id < first ? older : fresh).push({ ...row, v: 0 });
    }
    const byId = (a, b) => (a.id < b.id ? -1 : 1);
    for (const row of fresh.sort(byId)) {
      if (!this.list.length || row.id > this.list[this.list.length - 1].id) this.list.push(row);
      else this.list.splice(this.#place(row.id), 0, row);
      this.known.set(row.id, row);
    }
    const room = this.max - this.list.length, taken = older.sort(byId).slice(Math.max(0, older.length - Math.max(0, room)));
    for (const row of taken) this.known.set(row.id, row);
    if (taken.length) this.list = taken.concat(this.list);
    if (taken.length < older.length) this.cut = true;
    this.#drop(0, this.list.length - this.max);
    return fresh.concat(taken);
  }

  #drop(from, many) {
    if (many <= 0) return;
    if (!from) this.cut = true;
    for (const row of this.list.splice(from, many)) this.known.delete(row.id);
  }

  /// Lets the newest go, so that `many` are held.
  keepOldest(many) {
    this.#drop(many, this.list.length - many);
  }

  /// Removes the rows that `keep` is false for.
  retain(keep) {
    this.list = this.list.filter((row) => keep(row) || (this.known.delete(row.id), false));
  }
}
