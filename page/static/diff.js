// What differs between two values, texts or byte strings. Pure, and bounded: what is too long to be aligned is compared
// place by place.

import { tree } from "./json.js";

const MOST_STEPS = 4_000_000;

/// Pairs of lines: `[left, right]`, where one that is missing is null. Lines that `same` holds for stand side by side.
export function align(left, right, same = (a, b) => a === b) {
  let head = 0, tail = 0;
  while (head < left.length && head < right.length && same(left[head], right[head])) head++;
  while (tail < left.length - head && tail < right.length - head && same(left[left.length - 1 - tail], right[right.length - 1 - tail])) tail++;
  const a = left.slice(head, left.length - tail), b = right.slice(head, right.length - tail), out = left.slice(0, head).map((one, i) => [one, right[i]]);
  if (a.length * b.length > MOST_STEPS) {
    for (let i = 0; i < Math.max(a.length, b.length); i++) out.push([a[i] ?? null, b[i] ?? null]);
  } else out.push(...paired(common(a, b, same), a, b));
  for (let i = tail; i > 0; i--) out.push([left[left.length - i], right[right.length - i]]);
  return out;
}

/// The longest common subsequence as pairs of places.
function common(a, b, same) {
  const width = b.length + 1, table = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      table[i * width + j] = same(a[i], b[j]) ? table[(i + 1) * width + j + 1] + 1 : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
    }
  }
  const out = [];
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (same(a[i], b[j])) out.push([i++, j++]);
    else if (table[(i + 1) * width + j] >= table[i * width + j + 1]) i++;
    else j++;
  }
  return out;
}

/// What stands between common lines stands side by side, as far as both have some.
function paired(pairs, a, b) {
  const out = [];
  let i = 0, j = 0;
  for (const [to, at] of [...pairs, [a.length, b.length]]) {
    while (i < to || j < at) out.push([i < to ? a[i++] : null, j < at ? b[j++] : null]);
    if (to < a.length && at < b.length) out.push([a[i++], b[j++]]);
  }
  return out;
}

/// `{count, rows: [{left, right, differs}]}` of two texts.
export function diffText(left, right) {
  const rows = align(left.split("\n"), right.split("\n")).map(([a, b]) => ({ left: a, right: b, differs: a !== b }));
  return { count: rows.filter((row) => row.differs).length, rows };
}

/// The same of two JSON texts, by value: the order of keys does not count, arrays go by position. Throws where one is not
/// JSON or nested too deep.
export function diffJson(left, right) {
  const rows = [];
  return { count: walk(rows, tree(left), tree(right), 0, "", ""), rows };
}

const quoted = (key) => `${JSON.stringify(key)}: `;
const isOpen = (node) => node.kind === "object" || node.kind === "array";

export function sameValue(a, b) {
  if (a.kind !== b.kind) return false;
  if (a.kind === "object") {
    const [left, right] = [new Map(a.entries), new Map(b.entries)];
    return left.size === right.size && [...left].every(([key, node]) => right.has(key) && sameValue(node, right.get(key)));
  }
  if (a.kind === "array") return a.items.length === b.items.length && a.items.every((node, i) => sameValue(node, b.items[i]));
  if (a.kind === "string") return JSON.parse(a.text) === JSON.parse(b.text);
  return a.text === b.text || (a.kind === "number" && sameNumber(a.text, b.text));
}

/// Numbers are the same if their digits are, however they are written; no digit is lost.
function sameNumber(a, b) {
  const plain = (text) => {
    const [, minus, whole, part = "", power = "0"] = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(text);
    const digits = (whole + part).replace(/^0+/, ""), trimmed = digits.replace(/0+$/, "");
    return trimmed ? `${minus}${trimmed}e${Number(power) - part.length + digits.length - trimmed.length}` : "0";
  };
  return plain(a) === plain(b);
}

/// Writes two values beside each other, or one where the other is missing. Returns how much differs.
function walk(rows, a, b, depth, name, comma) {
  const one = a ?? b, isAlone = !a || !b, pad = "  ".repeat(depth);
  if (!isAlone && a.kind !== b.kind && (isOpen(a) || isOpen(b))) {
    walk(rows, a, null, depth, name, comma);
    walk(rows, null, b, depth, name, comma);
    return 1;
  }
  const put = (left, right, differs = isAlone) => rows.push({ left: a ? pad + left : null, right: b ? pad + right : null, differs });
  if (!isOpen(one)) {
    const differs = isAlone || !sameValue(a, b);
    put(name + a?.text + comma, name + b?.text + comma, differs);
    return Number(differs);
  }
  const { entries: left = [], items: lefts = [] } = a ?? {}, { entries: right = [], items: rights = [] } = b ?? {}, [open, close] = one.kind === "object" ? "{}" : "[]";
  const children = one.kind === "object" ? merged(left, right) : Array.from({ length: Math.max(lefts.length, rights.length) }, (_, i) => ["", lefts[i], rights[i]]), n = children.length;
  const begin = name + open + (n ? "" : close + comma), end = close + comma;
  put(begin, begin);
  const count = children.reduce((all, [key, left, right], i) => all + walk(rows, left, right, depth + 1, key, i < n - 1 ? "," : ""), 0);
  if (n) put(end, end);
  return isAlone ? 1 : count;
}

/// The keys of both, in the order of the first, those that only the second has behind the key that they follow there. Of a
/// key that stands twice the last counts.
function merged(a, b) {
  const left = new Map(a), right = new Map(b), first = [], behind = new Map();
  let before = first;
  for (const key of right.keys()) {
    if (!left.has(key)) before.push(key);
    else behind.set(key, before = []);
  }
  const out = first.concat([...left.keys()].flatMap((key) => [key, ...(behind.get(key) ?? [])]));
  return out.map((key) => [quoted(key), left.get(key), right.get(key)]);
}

/// `{same, first, differing}`: the first place where bytes differ, and at how many places up to the shorter one's end.
export function diffBytes(left, right) {
  const short = Math.min(left.length, right.length);
  let first = -1, differing = Math.abs(left.length - right.length);
  for (let i = 0; i < short; i++) {
    if (left[i] === right[i]) continue;
    if (first < 0) first = i;
    differing++;
  }
  if (first < 0 && left.length !== right.length) first = short;
  return { same: first < 0, first, differing };
}

/// Headers by name, in order: `[{left, right, differs}]`.
export function diffHeaders(left, right) {
  const text = ([name, value]) => `${name.toLowerCase()}: ${value}`, name = (line) => line.slice(0, line.indexOf(":"));
  const rows = align(left.map(text), right.map(text), (a, b) => name(a) === name(b)).map(([a, b]) => ({ left: a, right: b, differs: a !== b }));
  return { count: rows.filter((row) => row.differs).length, rows };
}
