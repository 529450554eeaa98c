// Accessibility by axe-core: every room and every sheet of the relay's page and the agent's, light and dark, narrow,
// medium and wide: no violation. In the dark the colours are looked at, since all else is the same there.
//
// `ORIGIN` and `KEY` look at a page that is there already, in place of a relay of its own; `STATES` picks by a pattern.

import { createRequire } from "node:module";
import { readFile } from "node:fs/promises";
import { Person, picture } from "./browser.mjs";
import { ok, steps } from "./lib.mjs";
import { relay, scene } from "./scene.mjs";

const AXE = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
/// What a theme can change: all else of a page is the same in each.
const COLOURS = ["color-contrast", "link-in-text-block"];

/// What is looked at: an address, what is done there, and what must be seen before axe looks.
const rows = (page) => page.locator("[role=option], [role=row]").first().waitFor();
const room = (title) => (page) => page.getByRole("heading", { level: 1, name: title }).waitFor();
const pressed = (key, name) => async (page) => {
  await rows(page);
  await page.keyboard.press("j");
  await page.keyboard.press(key);
  await page.getByRole("dialog", { name }).waitFor();
};
const clicked = (title, button) => async (page) => {
  await room(title)(page);
  await page.getByRole("button", { name: button }).first().click();
  await page.getByRole("dialog").waitFor();
};
const opened = (query) => async (page) => {
  await rows(page);
  await page.keyboard.press("j");
  await page.locator("[role=row][aria-selected=true]").waitFor();
  await page.keyboard.press("Enter");
  await page.locator(".detail .facts").waitFor();
  for (const key of query) await page.keyboard.press(key);
  await page.locator(".detail [aria-busy=true]").waitFor({ state: "detached" });
};
/// Two events marked, so that what can be done to both is there.
const marked = async (page) => {
  await rows(page);
  for (const key of ["Home", "x", "j", "x"]) await page.keyboard.press(key);
  await page.getByRole("group", { name: "Marked events" }).waitFor();
};
const compared = (part) => async (page) => {
  await marked(page);
  await page.keyboard.press("=");
  const sheet = page.getByRole("dialog", { name: "Compare" });
  await sheet.getByRole("button", { name: part }).click();
  await sheet.getByText("Comparing…").waitFor({ state: "detached" });
};
const inEvent = (button) => async (page) => {
  await opened("")(page);
  await page.getByRole("button", { name: button }).first().click();
  await page.getByRole("dialog").waitFor();
};
const exchange = async (page) => {
  await room("This agent")(page);
  await page.getByRole("button", { name: /^POST/ }).first().click();
  await page.getByRole("region", { name: "An exchange" }).waitFor();
};

const of = (states) => states.filter(([name]) => new RegExp(process.env.STATES ?? "").test(name));
const RELAY = of([
  ["events", "/", rows], ["event", "/", opened("")], ["answer", "/", opened("t")], ["headers", "/", opened("tt")], ["attempts", "/", opened("ttt")], ["raw", "/", opened("v")], ["hex", "/", opened("vv")],
  ["failing", "/events?q=is:dead", opened("")], ["refused", "/events?q=is:refused", opened("")], ["nothing fits", "/events?q=zzzzzz", (page) => page.locator("main").waitFor()],
  ["mistake", "/events?q=is:nonsense", (page) => page.locator("main").waitFor()],
  ["keys", "/", pressed("?", /keys/i)], ["edit", "/", pressed("e", /edit/i)], ["save", "/", inEvent("Save…")], ["where to", "/events?q=is:delivered", pressed("r", /where to/i)],
  ["marked", "/", marked], ["compare", "/", compared("Request body")], ["compare headers", "/", compared("Headers")],
  ["endpoints", "/endpoints", room("Endpoints")], ["endpoint", "/endpoints/github", room("github")], ["new endpoint", "/endpoints", clicked("Endpoints", "New endpoint")],
  ["pause", "/endpoints/github", clicked("github", /Pause/)], ["agents", "/agents", room("Agents")], ["disconnect", "/agents", clicked("Agents", /Disconnect/)],
  ["dead letters", "/dead", room("Dead letters")], ["revive all", "/dead", clicked("Dead letters", /Revive all/)], ["figures", "/figures", room("Figures")],
  ["access", "/access", room("Access")], ["new token", "/access", clicked("Access", "New token")], ["not there", "/endpoints/nothing", room("nothing")],
]);
const AGENT = of([
  ["agent events", "/", rows], ["agent event", "/", opened("")], ["agent answer", "/", opened("t")], ["agent edit", "/", pressed("e", /edit/i)], ["agent compare", "/", compared("Answer")],
  ["this agent", "/agent", room("This agent")], ["an exchange", "/agent", exchange], ["agent endpoints", "/endpoints", room("Endpoints")], ["agent dead letters", "/dead", room("Dead letters")], ["agent figures", "/figures", room("Figures")],
]);
const FIRST = of([["first run", "/", (page) => page.getByRole("heading", { name: "Nothing has come yet" }).waitFor()]]);
const OUT = of([["login", "/", (page) => page.getByRole("dialog", { name: "Open the inspector" }).waitFor()]]);

/// A theme and a width each: both of each where ALL is set. A state is brought about once, and seen in each form.
const FORMS = [["light", 1440], ["light", 390], ["dark", 900], ...(process.env.ALL ? [["light", 900], ["dark", 1440], ["dark", 390]] : [])];
const HEIGHTS = { 390: 844, 900: 800, 1440: 900 };

const found = ({ violations }) => violations.map((one) => `${one.id} (${one.impact}): ${one.nodes.slice(0, 3).map((node) => `${node.target.join(" ")} ${node.any[0]?.message ?? node.all[0]?.message ?? ""}`).join(" | ")}`);

/// What is wrong with a page as it is shown now.
async function judged(page, theme) {
  const widths = page.evaluate(() => ["html", ".listwrap", ".detail", "main.room", "dialog .sb"].flatMap((part) => [...document.querySelectorAll(part)].filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => `${part} is wider than its place by ${one.scrollWidth - one.clientWidth} px`)));
  return [...await widths, ...found(await page.evaluate((only) => globalThis.axe.run(document, { runOnly: only, resultTypes: ["violations"] }), theme === "light" ? TAGS : COLOURS))];
}

/// Looks at states of one page in a browser of its own; `login` is an address that logs in, or where nobody does.
async function look(login, states) {
  const person = await Person.come({ origin: new URL(login).origin, init: [AXE] });
  const wrong = [];
  try {
    if (login.includes("#")) await person.open(login).then((page) => page.locator("main").waitFor());
    for (const [name, path, ready] of states) {
      const page = await person.open(path);
      for (const [i, [theme, width]] of FORMS.entries()) {
        try {
          await page.emulateMedia({ colorScheme: theme });
          await page.setViewportSize({ width, height: HEIGHTS[width] });
          if (!i) await ready(page);
          // What slides or fades in has its last colours then, and what depends on the width is drawn.
          await page.evaluate(() => new Promise((drawn) => { requestAnimationFrame(() => setTimeout(drawn)); }).then(() => Promise.all(document.getAnimations().map((one) => one.finished.catch(() => null)))));
          wrong.push(...(await judged(page, theme)).map((what) => `${name}, ${theme}, ${width}: ${what}`));
        } catch (error) {
          wrong.push(`${name}, ${theme}, ${width}: ${error.message.split("\n")[0]}`);
        }
        await picture(page, `${name.replaceAll(" ", "-")}-${theme}-${width}`);
      }
      await page.close();
    }
  } finally {
    await person.leave();
  }
  return wrong;
}

const none = (...looks) => async () => {
  const wrong = [];
  let states = 0;
  for (const [address, of] of looks) {
    wrong.push(...await look(await address(), of));
    states += of.length;
  }
  ok(!wrong.length, `\n  ${wrong.join("\n  ")}`);
  return `${states} states in ${FORMS.length} forms each`;
};

if (process.env.ORIGIN) await steps([["axe", none([() => `${process.env.ORIGIN}/#key=${process.env.KEY ?? "x"}`, RELAY])]]);
else {
  const [at, empty] = await Promise.all([scene(), relay()]), half = Math.ceil(RELAY.length / 2);
  await steps(
    [["axe, events and what is done to them", none([() => at.relay.page(), RELAY.slice(0, half)])], ["axe, logged out and at a first run", none([() => `${at.relay.origin}/`, OUT], [() => empty.page(), FIRST])]],
    [["axe, rooms", none([() => at.relay.page(), RELAY.slice(half)])], ["axe, the agent's page", none([() => at.agent.page(), AGENT])]],
  );
}
