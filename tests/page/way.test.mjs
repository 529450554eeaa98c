// The way of an event: hops in, bars and places out.

import assert from "node:assert/strict";
import test from "node:test";

const { scaleOf, stepsOf } = await import("../../page/static/way.js");

const hops = [{ what: "received", at_us: 0 }, { what: "body", at_us: 400, bytes: 598 }, { what: "verified", at_us: 520 }, { what: "stored", at_us: 2900 },
  { what: "attempt", number: 1, at_us: 3100, agent: "edge-1" }, { what: "answer_head", number: 1, at_us: 33_400, status: 500 }, { what: "answered", at_us: 33_900 },
  { what: "waits", at_us: 33_901 }, { what: "attempt", number: 2, at_us: 5_034_000, agent: "edge-1" }, { what: "answer_head", number: 2, at_us: 5_876_000, status: 201 }];
const event = { kind: "event", state: "delivered", attempt_count: 2, received_at: "2026-11-28T15:06:15Z", verified: "stripe", hops, attempts: [], answered: { whose: "ack", status: 200, after_us: 33_900 } };

test("hops become steps in the order of time, each as long as it took", () => {
  const steps = stepsOf(event);
  assert.deepEqual(steps.map((step) => [step.what, step.to - step.from, step.kind]), [["received", 0, ""], ["head and body", 400, ""], ["verified", 120, "ok"], ["stored", 2380, "ok"],
    ["attempt 1: handler", 30_300, "bad"], ["answered sender", 500, "ok"], ["waits for retry", 5_000_099, "wait"], ["attempt 2: handler", 842_000, "ok"]]);
  assert.equal(steps[4].note, "500 from edge-1");
});

test("where the agent's tap is at hand, the handler's part stands by itself, inside of its attempt", () => {
  const steps = stepsOf({ ...event, tapped: [{ attempt: 2, called_us: 1000, head_us: 800_000, ended_us: 802_000 }] }), at = steps.findIndex((step) => step.what === "handler’s socket");
  assert.deepEqual([steps[at - 1].what, steps[at].to - steps[at].from], ["attempt 2: tunnel and handler", 801_000]);
  assert.ok(steps[at].from > steps[at - 1].from && steps[at].to < steps[at - 1].to);
});

test("a wait that is most of the way is shortened, and order stays", () => {
  const { total, short, place } = scaleOf(stepsOf(event));
  assert.equal(total, 5_876_000);
  assert.equal(short, true);
  const places = [0, 33_901, 2_000_000, 5_034_000, 5_876_000].map(place);
  assert.deepEqual([...places].sort((a, b) => a - b), places);
  assert.equal(places[4], 1);
  assert.ok(places[3] - places[1] < 0.4, String(places));
});

test("a refusal ends at its answer, and nothing that is missing breaks it", () => {
  const steps = stepsOf({ kind: "refused", state: "refused", why: "signature_mismatch", hops: [{ what: "received", at_us: 0 }, { what: "answered", at_us: 600, status: 401 }] });
  assert.deepEqual(steps.map((step) => [step.what, step.kind]), [["received", ""], ["refused", "bad"]]);
  assert.deepEqual(stepsOf({}), []);
  assert.equal(scaleOf([]).place(5), 1);
});
