// The page's address, read and written. Pure: text in, a plain object out, and back.
//
// What stands in the address is what a link should lead to: the room, the query, the view, the open event, its tab, the
// form of its body and the attempt. Width and theme are the browser's own and stand elsewhere.

const ROOMS = ["events", "endpoints", "agents", "dead", "figures", "access", "agent"];
/// What the open event is shown by.
export const TABS = ["request", "answer", "headers", "attempts"], FORMS = ["pretty", "raw", "hex"];
const KEYS = ["q", "view", "e", "tab", "form", "at"];

/// `{room, name, q, view, e, tab, form, at}`; what does not stand there is "".
export function parse(path, search = "") {
  const [room = "", ...rest] = path.replace(/^\/+/, "").split("/");
  const asked = new URLSearchParams(search);
  const route = { room: ROOMS.includes(room) ? room : "events", name: "" };
  for (const key of KEYS) route[key] = asked.get(key) ?? "";
  if (room === "e") route.e = decoded(rest.join("/"));
  if (room === "endpoints") route.name = decoded(rest.join("/"));
  return route;
}

/// The address of a route. An open event without a query is its permalink.
export function format(route) {
  const asked = new URLSearchParams();
  for (const key of KEYS) if (route[key]) asked.set(key, route[key]);
  let path = route.room === "events" ? "/" : `/${route.room}`;
  if (route.room === "endpoints" && route.name) path += `/${encodeURIComponent(route.name)}`;
  if (route.room === "events" && route.e && !route.q && !route.view) {
    path = `/e/${encodeURIComponent(route.e)}`;
    asked.delete("e");
  } else if (route.room === "events" && asked.size) path = "/events";
  const text = asked.toString();
  return text ? `${path}?${text}` : path;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/// What a fragment logs in with: `["key" | "code", value]`, or null.
export function login(fragment) {
  const match = /^#(key|code)=([\w.~+/=-]{1,512})$/.exec(fragment);
  return match ? [match[1], match[2]] : null;
}
