// Keys that act while nothing is typed.
//
// A page binds a map from key to function; the map bound last is asked first. `g e` is a sequence. A function that
// returns false leaves the key to the browser. Nothing acts while a sheet is open or text is typed; keys of a single
// letter can be switched off (WCAG 2.1.4), arrows, Enter and Escape always work.

import { signal } from "./html.js";

const STORED = "relay.keys";
export const singles = signal(stored() !== "off");
function stored() {
  try {
    return localStorage.getItem(STORED);
  } catch {
    return null;
  }
}

export function setSingles(on) {
  singles.value = on;
  localStorage.setItem(STORED, on ? "on" : "off");
}

const maps = [];
/// Binds a map; returns what unbinds it.
export function bind(map) {
  maps.push(map);
  return () => { maps.splice(maps.indexOf(map), 1); };
}

let prefix = "", forgets;
function press(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (document.querySelector("dialog[open]")) return;
  const { target, key } = event;
  if (target.matches?.("input,textarea,select,[contenteditable]") && key !== "Escape") return;
  if ((key === "Enter" || key === " ") && target.closest?.("button,a,summary,label")) return;
  if (key.length === 1 && key !== " " && !singles.value) return;
  const whole = prefix ? `${prefix} ${key}` : key;
  clearTimeout(forgets);
  prefix = "";
  for (const name of whole === key ? [key] : [whole, key]) {
    for (let at = maps.length - 1; at >= 0; at--) {
      const act = maps[at][name];
      if (!act) continue;
      if (act(event) !== false) event.preventDefault();
      return;
    }
  }
  if (maps.some((map) => Object.keys(map).some((name) => name.startsWith(`${key} `)))) {
    prefix = key;
    forgets = setTimeout(() => { prefix = ""; }, 1200);
    event.preventDefault();
  }
}

export const listen = () => addEventListener("keydown", press);

/// What the sheet of keys shows.
export const KEYS = [
  ["Move", [["j", "k", "next, previous event"], ["g g", "G", "newest, oldest"], ["n", "N", "next, previous failure"],
    ["Enter", "", "into the event"], ["Esc", "", "back, then unmark, then clear"]]],
  ["Find", [["/", "", "search"], ["1", "5", "views: all … replays"], ["f", "", "follow the newest"], ["p", "", "pause the live list"]]],
  ["Act", [["r", "", "replay"], ["e", "", "edit and replay"], ["c", "", "copy as curl"], ["y", "", "copy a link"],
    ["w", "", "explain a refusal"], ["x", "Space", "mark"], ["J", "K", "mark a range"], ["=", "", "compare"]]],
  ["Look", [["t", "", "request, answer, headers, attempts"], ["v", "", "pretty, raw, hex"], ["[", "]", "earlier, later attempt"],
    ["d", "", "light, dark, as the system"], ["?", "", "these keys"]]],
  ["Go", [["g e", "", "events"], ["g n", "", "endpoints"], ["g a", "", "agents"], ["g d", "", "dead letters"], ["g s", "", "figures"]]],
];
