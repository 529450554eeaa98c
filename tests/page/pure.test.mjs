// The page's pure modules, by `node --test`: values in, values out.

import assert from "node:assert/strict";
import test from "node:test";

const { judge, terms } = await import("../../page/static/judge.js");
const { align, diffBytes, diffHeaders, diffJson, diffText } = await import("../../page/static/diff.js");
const { base64, dump, hexLine, textOf, undump } = await import("../../page/static/hex.js");
const { layout, lines, mistake, tree } = await import("../../page/static/json.js");
const { boundary, fieldsOf, partsOf, xmlLines } = await import("../../page/static/multipart.js");
const { format, login, parse } = await import("../../page/static/route.js");
const { Rows } = await import("../../page/static/rows.js");
const { dur, line, look, patience, seen, size, status, title } = await import("../../page/static/text.js");

const bytes = (text) => new TextEncoder().encode(text);
const laid = (all) => [...all].map(({ depth, parts }) => " ".repeat(depth) + parts.map(([, text]) => text).join(""));

test("JSON is laid out as it was written, digits, escapes and repeated keys included", () => {
  const text = '{"n":12345678901234567890,"e":1.50e3,"s":"\\u00e4\\/","n":[],"o":{},"a":[1,{"b":null}]}';
  assert.deepEqual(laid(lines(text)), ["{", ' "n": 12345678901234567890,', ' "e": 1.50e3,', ' "s": "\\u00e4\\/",', ' "n": [],', ' "o": {},', ' "a": [', "  1,", "  {", '   "b": null', "  }", " ]", "}"]);
});

test("a mistake in JSON has its place", () => {
  for (const [text, row, column] of [['{"a":}', 1, 6], ["[1,\n]", 2, 1], ['{"a" 1}', 1, 6], ["", 1, 1], ["[1 2]", 1, 4], ["{,}", 1, 2], ["[1]]", 1, 4], ['["\n"]', 1, 2], ["nul", 1, 1], ["01", 1, 2]]) {
    const found = mistake(text);
    assert.deepEqual([found?.line, found?.column], [row, column], text);
  }
  for (const text of ["0", ' {"__proto__":{"a":[true,false,null]}}\n', '"\\ud83d"', "[-1e-9]"]) assert.equal(mistake(text), null, text);
});

test("JSON of ten thousand levels is read, and not made a tree of", () => {
  const deep = "[".repeat(10_000) + "]".repeat(10_000);
  assert.equal(laid(lines(deep)).length, 19_999);
  assert.throws(() => tree(deep), RangeError);
});

test("what an editor lays out comes back as it was, but for what was changed", () => {
  for (const text of ['{"a":[1,{}],"b":"x, y: z"}', '{"a": [1, {}], "b": "x"}', "[]"]) {
    const found = layout(text);
    assert.equal(found.back(found.text), text);
  }
  const found = layout('{"a":1,"b":2}');
  assert.equal(found.back(found.text.replace("1", "7")), '{"a":7,"b":2}');
  for (const text of ['{ "a":1}', "no", '{\n"a":1}']) assert.equal(layout(text), null, text);
});

test("JSON is compared by value", () => {
  assert.equal(diffJson('{"a":1,"b":[1,2]}', '{"b":[1.0,2e0],"a":1}').count, 0);
  assert.equal(diffJson('{"a":12345678901234567890}', '{"a":12345678901234567891}').count, 1);
  assert.equal(diffJson('"\\u0041"', '"A"').count, 0);
  assert.equal(diffJson('{"__proto__":{"x":1}}', '{"__proto__":{"x":2}}').count, 1);
  const { count, rows } = diffJson('{"a":1,"gone":[1],"t":"x"}', '{"a":2,"new":{},"t":"x"}');
  assert.equal(count, 3);
  assert.deepEqual(rows.filter((row) => row.differs).map(({ left, right }) => [left, right]), [['  "a": 1,', '  "a": 2,'], [null, '  "new": {},'], ['  "gone": [', null], ["    1", null], ["  ],", null]]);
  assert.throws(() => diffJson("{", "{}"));
});

test("texts are compared by line, headers by name, bytes by offset", () => {
  assert.deepEqual(diffText("a\nb\nc\nd", "a\nc\nx\nd").rows.map((row) => [row.left, row.right]), [["a", "a"], ["b", null], ["c", "c"], [null, "x"], ["d", "d"]]);
  assert.equal(diffText("a\nb", "a\nc").count, 1);
  assert.deepEqual(diffHeaders([["A", "1"], ["b", "2"]], [["a", "1"], ["b", "3"], ["c", ""]]).rows.map((row) => row.differs), [false, true, true]);
  assert.deepEqual(diffBytes(bytes("abc"), bytes("abd")), { same: false, first: 2, differing: 1 });
  assert.deepEqual(diffBytes(bytes("abc"), bytes("ab")), { same: false, first: 2, differing: 1 });
  assert.equal(diffBytes(bytes("abc"), bytes("abc")).same, true);
  const long = Array.from({ length: 3000 }, (_, i) => `l${i}`), other = long.map((one) => `${one}!`);
  assert.equal(align(long, other).length, 3000);
});

test("bytes become digits and come back", () => {
  const all = Uint8Array.from({ length: 300 }, (_, i) => i & 255);
  assert.deepEqual(undump(dump(all)).bytes, all);
  assert.deepEqual(hexLine(bytes("AB\u0000"), 0, 16), ["000010", `41 42 00${" ".repeat(40)}`, "AB·"]);
  assert.equal(undump("41 4").line, 1);
  assert.match(undump("41\n4x").message, /x/);
  assert.equal(base64(all), Buffer.from(all).toString("base64"));
  assert.equal(textOf(bytes("a\tä\n")), "a\tä\n");
  for (const binary of [[0xff], [0], [0xc3]]) assert.equal(textOf(Uint8Array.from(binary)), null);
});

test("multipart, forms and XML are taken apart", () => {
  const body = bytes('--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b\r\nContent-Disposition: form-data; name="f"; filename="x.png"\r\nContent-Type: image/png\r\n\r\n--bx\r\n--b--\r\n');
  assert.equal(boundary('multipart/form-data; charset=x; boundary="b"'), "b");
  assert.equal(boundary("text/plain"), null);
  const parts = partsOf(body, "b");
  assert.deepEqual(parts.map((part) => [part.name, part.filename, part.type, new TextDecoder().decode(part.bytes)]).slice(0, 1), [["a", null, "", "1"]]);
  assert.equal(parts[1].filename, "x.png");
  assert.deepEqual(partsOf(bytes("nothing"), "b"), []);
  assert.deepEqual(fieldsOf("a=1+2&b=%C3%A4&c&d=%zz"), [["a", "1 2"], ["b", "ä"], ["c", ""], ["d", "%zz"]]);
  assert.deepEqual(laid(xmlLines('<?xml?><a x=">"><b/>t</a>')), ["<?xml?>", '<a x=">">', " <b/>", " t", "</a>"]);
});

test("addresses are read and written", () => {
  for (const [path, search, route] of [["/", "", { room: "events" }], ["/e/hook_1", "", { room: "events", e: "hook_1" }], ["/events", "?q=is%3Adead&view=failing&e=hook_1&tab=answer", { q: "is:dead", view: "failing", e: "hook_1", tab: "answer" }], ["/endpoints/a%20b", "", { room: "endpoints", name: "a b" }]]) {
    const found = parse(path, search);
    for (const [key, value] of Object.entries(route)) assert.equal(found[key], value);
    assert.equal(format(found), path + search);
  }
  assert.equal(parse("/%zz", "").room, "events");
  assert.deepEqual(login("#key=abc_-1"), ["key", "abc_-1"]);
  assert.deepEqual(login("#code=x"), ["code", "x"]);
  for (const other of ["", "#key=", "#evil=1", "#key=a b"]) assert.equal(login(other), null);
});

test("units and words", () => {
  const plain = (text) => text.replaceAll("\u00a0", " ");
  assert.deepEqual([0, 400, 9949, 34_200, 842_000, 2_610_000, 61_000_000].map((us) => plain(dur(us))), ["0 µs", "400 µs", "9.9 ms", "34 ms", "842 ms", "2.61 s", "1 min 1 s"]);
  assert.deepEqual([0, 999, 1000, 48_213, 100_000, 999_499, 999_500, 3_100_000].map((n) => plain(size(n))), ["0 B", "999 B", "1.0 kB", "48.2 kB", "100 kB", "999 kB", "1.0 MB", "3.1 MB"]);
  assert.equal(seen("a\u202eb\u0000\ud800 ä🙂"), "a\\u{202e}b\\u{0}\\u{d800} ä🙂");
  assert.equal(line("a\nb"), "a\\u{a}b");
  assert.equal(look({ state: "constructor" }).kind, "off");
  assert.equal(look({ kind: "refused", state: "x" }).kind, "bad");
  assert.equal(title({ method: "POST", target: "/x" }), "POST /x");
  assert.equal(status({ state: "pending", next_try: new Date(9000).toISOString() }, 0), "9\u00a0s");
  assert.equal(status({ state: "dead", status: 500 }), "500");
  assert.equal(patience(0.01), null);
  assert.equal(patience(0.9).kind, "bad");
});

test("a row is judged by what it tells, and by nothing else", () => {
  const row = { endpoint: "pay", state: "dead", kind: "event", event_type: "invoice.paid", target: "/a?b", status: 500, method: "POST", attempt_count: 8 };
  for (const [query, fits] of [["", true], ["endpoint:pay,shop", true], ["endpoint:shop", false], ["type:invoice.*", true], ["-type:invoice.*", false], ["status:5xx is:dead", true], ["status:404", false], ["body:x", null], ["-body:x endpoint:shop", false], ["invoice", true], ["mug", null], ["path:/a", true], ["is:constructor", null]]) assert.equal(judge(query, row), fits, query);
  assert.deepEqual(terms('-type:"a b" word answer:"x, y"').map((one) => [one.not, one.key, one.values]), [[true, "type", ["a b"]], [false, "", ["word"]], [false, "answer", ["x, y"]]]);
});

test("rows stay in order, are held once and take newer states only", () => {
  const rows = new Rows(5), one = (id, rev = 0, more = {}) => ({ id, rev, ...more });
  rows.put([one("c"), one("b")]);
  assert.equal(rows.put([one("d", 2), one("b"), one("a")]).length, 2);
  assert.deepEqual(rows.list.map((row) => row.id), ["a", "b", "c", "d"]);
  const held = rows.row("d");
  rows.put([one("d", 3, { state: "dead" })]);
  rows.put([one("d", 2, { state: "old" })]);
  assert.equal(held.state, "dead");
  assert.equal(rows.at(0), held);
  assert.equal(rows.indexOf("a"), 3);
  rows.put([one("e"), one("f"), one("g")]);
  assert.deepEqual(rows.list.map((row) => row.id), ["c", "d", "e", "f", "g"]);
  assert.equal(rows.put([one("b")]).length, 0);
  assert.equal(rows.has("a"), false);
});

test("rows that had to go are known of, whichever end they went from", () => {
  const rows = new Rows(4), some = (text) => [...text].map((id) => ({ id }));
  rows.put(some("cdef"));
  assert.equal(rows.cut, false);
  rows.put(some("g"));
  assert.deepEqual([rows.cut, rows.at(rows.length - 1).id, rows.has("c")], [true, "d", false]);
  rows.cut = false;
  rows.keepOldest(2);
  rows.put(some("ab"));
  assert.deepEqual([rows.list.map((row) => row.id), rows.has("g"), rows.cut], [["a", "b", "d", "e"], false, false]);
});
