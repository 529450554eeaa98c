// Units, times and words, as the page shows them. Pure: values in, text out.
//
// Numbers and units are joined by a no-break space. Words for states are the relay's; here stands what shape and weight
// each has. Nothing here knows the DOM.

const GAP = "\u00a0";
const two = (n) => String(n).padStart(2, "0");

/// Microseconds.
export function dur(us) {
  if (us === null || us === undefined) return "";
  if (us < 1000) return `${Math.round(us)}${GAP}µs`;
  const ms = us / 1000;
  if (ms < 9.95) return `${ms.toFixed(1)}${GAP}ms`;
  if (ms < 999.5) return `${Math.round(ms)}${GAP}ms`;
  const s = ms / 1000;
  if (s < 59.95) return `${s.toFixed(s < 9.995 ? 2 : 1)}${GAP}s`;
  return span(s);
}

/// Seconds, roughly: two units at most.
export function span(s) {
  s = Math.round(s);
  if (s < 60) return `${s}${GAP}s`;
  for (const [unit, of, next, sub] of [["d", 86400, "h", 3600], ["h", 3600, "min", 60], ["min", 60, "s", 1]]) {
    if (s < of) continue;
    const rest = Math.floor((s % of) / sub);
    return `${Math.floor(s / of)}${GAP}${unit}${rest ? `${GAP}${rest}${GAP}${next}` : ""}`;
  }
  return "";
}

/// Bytes.
export function size(bytes) {
  if (bytes === null || bytes === undefined) return "";
  if (bytes < 1000) return `${bytes}${GAP}B`;
  for (const [unit, of] of [["kB", 1e3], ["MB", 1e6], ["GB", 1e9]]) {
    if (bytes < of * 999.5) return `${(bytes / of).toFixed(bytes < of * 99.95 ? 1 : 0)}${GAP}${unit}`;
  }
  return `${(bytes / 1e12).toFixed(1)}${GAP}TB`;
}

export const count = (n) => Number(n).toLocaleString("en");
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/// The local time of day of an RFC 3339 text; "" for what is none.
export function clock(iso, parts = "s") {
  const at = new Date(iso ?? NaN);
  if (Number.isNaN(at.getTime())) return "";
  const time = `${two(at.getHours())}:${two(at.getMinutes())}`;
  if (parts === "m") return time;
  const seconds = `${time}:${two(at.getSeconds())}`;
  return parts === "ms" ? `${seconds}.${String(at.getMilliseconds()).padStart(3, "0")}` : seconds;
}

/// The local date.
export function day(iso) {
  const at = new Date(iso ?? NaN);
  if (Number.isNaN(at.getTime())) return "";
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
}

/// The time of day, with the date where that is not today.
export function when(iso, now = Date.now()) {
  return day(iso) === day(new Date(now).toISOString()) ? clock(iso) : `${day(iso)} ${clock(iso)}`.trim();
}

export const full = (iso) => `${day(iso)} ${clock(iso, "ms")}`;

/// How long until a time, for a cell; "now" once it is past.
export function until(iso, now = Date.now()) {
  const s = (new Date(iso).getTime() - now) / 1000;
  if (!(s > 0)) return "now";
  return s < 60 ? `${Math.ceil(s)}${GAP}s` : s < 3600 ? `${Math.round(s / 60)}${GAP}min` : s < 86400 ? `${Math.round(s / 3600)}${GAP}h` : `${Math.round(s / 86400)}${GAP}d`;
}

// What a reader cannot see, or what turns the rest of a line around.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;
const escape = (char) => `\\u{${char.charCodeAt(0).toString(16)}}`;

/// A sender's or handler's text with what cannot be seen written out. Line feeds and tabs stay.
export const seen = (text) => String(text ?? "").replace(UNSEEN, escape);
/// The same, on one line.
export const line = (text) => seen(text).replace(/[\n\t]/g, escape);

/// A code of the relay, such as an outcome, in words.
export const words = (code) => line(code).replaceAll("_", " ");

/// What a state looks like: `kind` colours, `shape` says the same without colour.
export const STATES = {
  delivered: { kind: "ok", shape: "", word: "Delivered" },
  answered: { kind: "ok", shape: "", word: "Answered" },
  rejected: { kind: "odd", shape: "tri", word: "Rejected by the handler" },
  waiting: { kind: "odd", shape: "ring", word: "Waiting" },
  running: { kind: "run", shape: "half", word: "Running" },
  dead: { kind: "bad", shape: "sq", word: "Dead letter" },
  failed: { kind: "bad", shape: "tri", word: "No answer" },
  refused: { kind: "bad", shape: "no", word: "Refused" },
  dropped: { kind: "off", shape: "dash", word: "Dropped" },
  cancelled: { kind: "off", shape: "dash", word: "Cancelled" },
  damaged: { kind: "bad", shape: "no", word: "Damaged" },
  handshake: { kind: "off", shape: "ring", word: "Handshake" },
};
STATES.pending = STATES.waiting;

/// The look of a row. What is not known is shown as it was told, in grey.
export function look(row) {
  const name = row.kind === "handshake" || row.kind === "refused" ? row.kind : row.state;
  return STATES[Object.hasOwn(STATES, name) ? name : ""] ?? { kind: "off", shape: "ring", word: line(name || "Unknown") };
}

export const isFailure = (row) => look(row).kind === "bad";

/// The text of a row's status: the last status, or what it waits for.
export function status(row, now = Date.now()) {
  const { state } = row;
  if (state === "running") return row.status ? String(row.status) : "…";
  if (state === "waiting" || state === "pending") {
    return row.next_try && new Date(row.next_try) > now ? until(row.next_try, now) : "waits";
  }
  return row.status ? String(row.status) : "–";
}

/// The type of a row, else its method and path.
export const title = (row) => line(row.event_type || `${row.method ?? ""} ${row.target || "/"}`.trim());

/// Short signs at the end of a row, and what they mean.
export function notes(row) {
  const out = [];
  if (row.attempt_count > 1) out.push([`×${row.attempt_count}`, `${row.attempt_count} attempts`]);
  if (row.kind === "live") out.push(["live", "live: nothing of it is kept but the journal"]);
  if (row.replay_of) out.push(["↺", "a replay"]);
  if (row.redelivered) out.push(["↻", "the sender sent it again"]);
  if (row.conflict_with) out.push(["≠", "the same sender's id with another body"]);
  if (row.unproven) out.push(["!", "let pass unproven"]);
  if (row.resigned) out.push(["✎", "signed afresh"]);
  return out;
}

/// How much of the sender's patience was used: nothing below 2 %, then how bad it is.
export function patience(part) {
  if (typeof part !== "number" || !(part >= 0.02)) return null;
  return { share: Math.min(1, part), kind: part > 0.85 ? "bad" : part > 0.5 ? "odd" : "" };
}

export const percent = (part) => part < 0.001 ? `under 0.1${GAP}%` : `${part < 0.1 ? (part * 100).toFixed(1) : Math.round(part * 100)}${GAP}%`;
