// A first guess whether a row fits a query, from the row alone: true, false, or null where the relay has to look.
//
// It serves to show rows at hand while one types; the relay's word counts. It knows the terms that rows can answer and
// calls all others unknown. Pure.

/// The terms of a query: `{not, key, values}`; a word has no key.
export function terms(query) {
  const out = [];
  for (const [, minus, key, rest] of query.matchAll(/(-?)(?:([a-z]+):)?("(?:[^"\\]|\\.)*"?|\S+)/g)) {
    const quoted = rest.startsWith('"');
    const text = quoted ? rest.slice(1, rest.length > 1 && rest.endsWith('"') ? -1 : undefined) : rest;
    out.push({ not: minus === "-", key: key ?? "", values: quoted ? [text] : key ? text.split(",") : [text] });
  }
  return out;
}

const IS = {
  waiting: (row) => row.state === "waiting" || row.state === "pending", replay: (row) => !!row.replay_of,
  conflict: (row) => !!row.conflict_with, retried: (row) => row.attempt_count > 1, redelivered: (row) => row.redelivered,
  unproven: (row) => row.unproven, live: (row) => row.kind === "live", handshake: (row) => row.kind === "handshake", refused: (row) => row.kind === "refused",
};
for (const name of ["running", "delivered", "answered", "rejected", "dead", "failed", "dropped", "damaged"]) IS[name] = (row) => row.state === name;

const like = (pattern, text) => {
  if (text === null || text === undefined) return false;
  const parts = pattern.split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${parts.join(".*")}$`, "s").test(text);
};

const KEYS = {
  endpoint: (row, value) => like(value, row.endpoint), agent: (row, value) => like(value, row.agent), type: (row, value) => like(value, row.event_type),
  path: (row, value) => like(value, (row.target ?? "").split("?")[0]), method: (row, value) => row.method === value.toUpperCase(),
  why: (row, value) => row.why === value, is: (row, value) => (Object.hasOwn(IS, value) ? Boolean(IS[value](row)) : null),
  status: (row, value) => (/^\dxx$/.test(value) ? String(row.status ?? "").startsWith(value[0]) : /^\d{3}$/.test(value) ? String(row.status) === value : null),
};

export function judge(query, row) {
  let all = true;
  for (const { not, key, values } of terms(query)) {
    let hit;
    if (key) {
      const hits = values.map((value) => (Object.hasOwn(KEYS, key) ? KEYS[key](row, value) : null));
      hit = hits.includes(true) ? true : hits.includes(null) ? null : false;
    } else {
      const cased = values[0] !== values[0].toLowerCase(), text = `${row.target} ${row.event_type ?? ""} ${row.sender_id ?? ""}`;
      hit = (cased ? text : text.toLowerCase()).includes(values[0]) ? true : null;
    }
    if (hit === null) all = null;
    else if (hit === not) return false;
  }
  return all;
}
