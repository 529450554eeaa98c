// Accessibility by axe-core: every room and every sheet, light and dark, narrow, medium and wide: no violation.
//
// `ORIGIN` and `KEY` look at a page that is there already, in place of a relay of its own; `STATES` picks by a pattern.

import { createRequire } from "node:module";
import { readFile } from "node:fs/promises";
import { Person, close, picture } from "./browser.mjs";
import { ok, steps } from "./lib.mjs";
import { scene } from "./scene.mjs";

const AXE = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
const SIZES = [[400, 800], [1100, 800], [1440, 900]];

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
  await page.keyboard.press("Enter");
  for (const key of query) await page.keyboard.press(key);
};
const STATES = [
  ["events", "/", rows], ["event", "/", opened("")], ["answer", "/", opened("t")], ["headers", "/", opened("tt")], ["attempts", "/", opened("ttt")], ["raw", "/", opened("v")], ["hex", "/", opened("vv")],
  ["failing", "/events?q=is:dead", opened("")], ["refused", "/events?q=is:refused", opened("")], ["nothing fits", "/events?q=zzzzzz", (page) => page.locator("main").waitFor()],
  ["mistake", "/events?q=is:nonsense", (page) => page.locator("main").waitFor()],
  ["keys", "/", pressed("?", /keys/i)], ["edit", "/", pressed("e", /edit/i)],
  ["endpoints", "/endpoints", room("Endpoints")], ["endpoint", "/endpoints/github", room("github")], ["new endpoint", "/endpoints", clicked("Endpoints", "New endpoint")],
  ["pause", "/endpoints/github", clicked("github", /Pause/)], ["agents", "/agents", room("Agents")], ["disconnect", "/agents", clicked("Agents", /Disconnect/)],
  ["dead letters", "/dead", room("Dead letters")], ["revive all", "/dead", clicked("Dead letters", /Revive all/)], ["figures", "/figures", room("Figures")],
  ["access", "/access", room("Access")], ["new token", "/access", clicked("Access", "New token")], ["not there", "/endpoints/nothing", room("nothing")],
].filter(([name]) => new RegExp(process.env.STATES ?? "").test(name));

let at;
async function look(theme, [width, height]) {
  const login = process.env.ORIGIN ? `${process.env.ORIGIN}/#key=${process.env.KEY ?? "x"}` : await at.relay.page();
  const person = await Person.come({ origin: new URL(login).origin, theme, width, height, init: [AXE] });
  try {
    await person.open(login).then((page) => page.locator("main").waitFor());
    const wrong = [];
    for (const [name, path, ready] of STATES) {
      const page = await person.open(path);
      try {
        await ready(page);
        // What slides or fades in has its last colours then.
        await page.evaluate(() => Promise.all(document.getAnimations().map((one) => one.finished.catch(() => null))));
        const { violations } = await page.evaluate((tags) => globalThis.axe.run(document, { runOnly: tags, resultTypes: ["violations"] }), TAGS);
        for (const one of violations) wrong.push(`${name}: ${one.id} (${one.impact}): ${one.nodes.slice(0, 3).map((node) => `${node.target.join(" ")} ${node.any[0]?.message ?? node.all[0]?.message ?? ""}`).join(" | ")}`);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        if (wide > 0) wrong.push(`${name}: ${wide} px wider than the window`);
      } catch (error) {
        wrong.push(`${name}: ${error.message.split("\n")[0]}`);
      }
      await picture(page, `${name.replaceAll(" ", "-")}-${theme}-${width}`);
      await page.close();
    }
    ok(!wrong.length, `\n  ${wrong.join("\n  ")}`);
    return `${STATES.length} states`;
  } finally {
    await person.leave();
  }
}

await steps([
  ...(process.env.ORIGIN ? [] : [["a relay with some of everything", async () => { at = await scene(); }]]),
  ...["light", "dark"].flatMap((theme) => SIZES.map((size) => [`axe ${theme} ${size[0]}`, () => look(theme, size)])),
  ["the browser ends", close],
]);
