// The two ways of a person: with a mouse, or with the keyboard alone. The journey is the same.
//
// By keyboard every element is reached with Tab, what has the focus is always seen, and the focus is never lost.

import { ok } from "./lib.mjs";

export class Mouse {
  constructor(page) {
    this.page = page;
  }
  async press(what) {
    await what.click();
  }
  async write(what, text) {
    await what.click();
    await what.fill(text);
  }
  async choose(what, value) {
    await what.selectOption(value);
  }
}

export class Keys {
  constructor(page) {
    this.page = page;
  }
  /// Tabs to an element, or to another radio of its group; every stop on the way must be seen.
  async reach(what) {
    await what.waitFor();
    for (let n = 0; n < 250; n++) {
      const there = await what.evaluate((element) => {
        const at = document.activeElement;
        return element === at || element.type === "radio" && at?.type === "radio" && at.name === element.name;
      });
      if (there) return;
      await this.page.keyboard.press("Tab");
      const lost = await this.page.evaluate(() => {
        const at = document.activeElement;
        if (!at || at === document.body || at === document.documentElement) return "";
        const box = at.getBoundingClientRect(), look = getComputedStyle(at), around = getComputedStyle(at.parentElement);
        const drawn = [look, around].some((one) => one.outlineStyle !== "none" && parseFloat(one.outlineWidth) > 0 || one.boxShadow !== "none");
        const inner = [...at.querySelectorAll("*")].some((one) => getComputedStyle(one).outlineStyle !== "none");
        return box.width > 0 && box.height > 0 && (drawn || inner) ? "" : at.outerHTML.slice(0, 160);
      });
      ok(!lost, `the focus is not seen on ${lost}`);
    }
    throw new Error(`Tab does not come to ${what}`);
  }
  async press(what) {
    await this.reach(what);
    const type = await what.evaluate((element) => element.type);
    if (type === "radio") for (let n = 0; n < 8 && !await what.isChecked(); n++) await this.page.keyboard.press("ArrowDown");
    else await this.page.keyboard.press(type === "checkbox" ? "Space" : "Enter");
  }
  async write(what, text) {
    await this.reach(what);
    await this.page.keyboard.press("ControlOrMeta+a");
    await this.page.keyboard.insertText(text);
  }
  async choose(what, value) {
    await this.reach(what);
    const label = await what.evaluate((element, value) => [...element.options].find((one) => one.value === value)?.label ?? "", value);
    await this.page.keyboard.type(label);
    ok(await what.inputValue() === value, `${value} cannot be chosen by typing`);
  }
}

/// After a sheet closed, something of the page has the focus.
export async function held(page) {
  const at = await page.evaluate(() => document.activeElement === document.body ? "" : document.activeElement?.outerHTML.slice(0, 80) ?? "");
  ok(at, "the focus was lost");
}
