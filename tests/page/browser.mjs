// A browser that notes what must never happen: reports of the content security policy or of Trusted Types, errors,
// dialogs, requests beyond the page's own origin, elements that the page's script did not make.

import { chromium } from "playwright-core";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { ends } from "./lib.mjs";

const PICTURES = process.env.PICTURES ?? "";
// `evil.test` leads to this machine, as a name does whose owner wants it to.
const args = ["--host-resolver-rules=MAP evil.test 127.0.0.1", ...(process.getuid?.() === 0 ? ["--no-sandbox"] : [])];
let browser;

/// The browser of this process; it ends with all that was started.
export function launch() {
  browser ??= chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args }).then((one) => {
    ends(() => one.close());
    return one;
  });
  return browser;
}

/// Runs in the page before anything else of it: notes policy reports, and marks each element that a script makes.
function watch() {
  globalThis.__faults = [];
  document.addEventListener("securitypolicyviolation", (event) => {
    globalThis.__faults.push(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
  });
  const made = new WeakSet();
  for (const name of ["createElement", "createElementNS"]) {
    const make = Document.prototype[name];
    Document.prototype[name] = function (...parts) {
      const element = make.apply(this, parts);
      made.add(element);
      return element;
    };
  }
  globalThis.__strange = () => [...document.querySelectorAll("body *")].filter((element) => !made.has(element) && element.id !== "app" && element.localName !== "noscript").map((element) => element.outerHTML.slice(0, 200));
}

/// One person's browser: its tabs share storage, a lock and a channel. `expected` are faults that its test causes.
export class Person {
  static async come({ origin, theme = "light", width = 1440, height = 900, init = [], permissions = ["clipboard-read", "clipboard-write"], reducedMotion = "reduce" }) {
    const person = new Person();
    Object.assign(person, { origin, faults: [], expected: [], asked: [] });
    person.context = await (await launch()).newContext({ viewport: { width, height }, colorScheme: theme, reducedMotion, acceptDownloads: true });
    await person.context.grantPermissions(permissions, { origin });
    await person.context.addInitScript(watch);
    for (const content of init) await person.context.addInitScript({ content });
    person.context.on("request", (request) => {
      const url = new URL(request.url());
      person.asked.push(`${request.method()} ${url.pathname}`);
      if (person.asked.length > 20_000) person.asked.splice(0, 10_000);
      if (url.origin !== origin && url.protocol !== "blob:") person.faults.push(`a request to ${request.url()}`);
    });
    person.context.on("page", (page) => person.mind(page));
    return person;
  }
  mind(page) {
    page.on("console", (message) => { if (message.type() === "error") this.faults.push(`console: ${message.text()} ${message.location().url}`); });
    page.on("pageerror", (error) => this.faults.push(`exception: ${error.stack ?? error.message}`));
    page.on("dialog", (dialog) => { this.faults.push(`dialog: ${dialog.message()}`); dialog.dismiss().catch(() => null); });
  }
  async open(url) {
    const page = await this.context.newPage();
    page.setDefaultTimeout(15_000);
    await page.goto(url.startsWith("http") ? url : this.origin + url);
    return page;
  }
  /// Throws what happened and must not have.
  async clean(what = "") {
    for (const page of this.context.pages()) {
      const [faults, strange] = await page.evaluate(() => [globalThis.__faults ?? [], globalThis.__strange?.() ?? []]);
      this.faults.push(...faults, ...strange.map((html) => `an element that the page did not make: ${html}`));
      await page.evaluate(() => { globalThis.__faults = []; });
    }
    const bad = this.faults.splice(0).filter((fault) => !this.expected.some((pattern) => pattern.test(fault)));
    if (bad.length) throw new Error(`${what}: ${[...new Set(bad)].slice(0, 8).join("\n  ")}`);
  }
  async leave() {
    await this.context.close();
  }
}

export async function picture(page, name) {
  if (!PICTURES) return;
  await mkdir(PICTURES, { recursive: true });
  await page.screenshot({ path: join(PICTURES, `${name}.png`) });
}
