// The journey without a mouse: the focus is always seen, and never lost after a sheet closes.

import { close } from "./browser.mjs";
import { Keys } from "./hands.mjs";
import { Journey } from "./journey.mjs";
import { steps } from "./lib.mjs";

await steps([...new Journey(Keys).steps(), ["the browser ends", close]]);
