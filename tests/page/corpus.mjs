// What a webhook, an answer or a name may hold to do harm: markup, scripts, addresses, invisible signs, shapes that
// break parsers, sizes that freeze pages. Everything that could run calls `alert` or asks `evil.test`.

import { gzipSync } from "node:zlib";

export const TEXTS = [
  "<img src=x onerror=alert(1)>", "<svg onload=alert(1)>", '"><script>alert(1)</script>', "</script><script>alert(1)</script>", "</textarea><script>alert(1)</script>",
  "</style><img src=x onerror=alert(1)>", "<!--><img src=x onerror=alert(1)>", "javascript:alert(1)", "JaVaScRiPt:alert(1)//https://x", "data:text/html,<script>alert(1)</script>",
  "<a href=javascript:alert(1)>here</a>", '<iframe srcdoc="<script>alert(1)</script>">', '<form action="https://evil.test"><button>', "<base href=https://evil.test/>",
  "<link rel=stylesheet href=https://evil.test/a.css>", '<meta http-equiv=refresh content="0;url=https://evil.test">', "<object data=https://evil.test>", "<video src=x onerror=alert(1)>",
  '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=alert(1)&gt;">', "<details open ontoggle=alert(1)>", "<x onclick=alert(1)>", "<dialog open>",
  "{{constructor.constructor('alert(1)')()}}", "${alert(1)}", "<%= 7*7 %>", "'-alert(1)-'", "`${alert(1)}`", "&lt;script&gt;alert(1)&lt;/script&gt;", "%3Cscript%3Ealert(1)%3C/script%3E",
  "https://evil.test/?a=\" onmouseover=\"alert(1)", "//evil.test/x", "__proto__", "constructor", "toString", "hasOwnProperty", "../../etc/passwd", "=cmd|' /C calc'!A0", "', DROP TABLE events; --",
];

/// What an HTTP header cannot carry, and a body can.
export const UNSEEN = [
  "\u202Egnp.exe\u202C", "a\u0000b", "line\u2028paragraph\u2029", "\ufeffmark", "zero\u200bwidth\u2060", "\u001b[31mred\u001b[0m\u001b]52;c;YWxlcnQ=\u0007\u001b]8;;https://evil.test\u0007", "Z\u0351\u036f\u0352a\u0344\u0312lgo".repeat(40),
  "\ud83d\ude00\u200d\ud83d\ude00", "\u061cright\u2067to\u2069left", "\r\nSet-Cookie: a=b\r\n\r\n<script>alert(1)</script>",
];

const json = (value) => JSON.stringify(value);
const MULTIPART = '--b\r\nContent-Disposition: form-data; name="<img src=x onerror=alert(1)>"; filename="../../<script>alert(1)</script>.html"\r\nContent-Type: text/html\r\n\r\n<script>alert(1)</script>\r\n--b--\r\n';

/// `[name, content type, body, content encoding]`.
export const BODIES = [
  ...TEXTS.map((text, at) => [`text ${at}`, ["text/html", "application/json", "text/plain", "application/javascript"][at % 4], at % 4 === 1 ? json({ [text]: text, list: [text] }) : text]),
  ...UNSEEN.map((text, at) => [`unseen ${at}`, at % 2 ? "text/plain" : "application/json", at % 2 ? text : json({ [text]: text })]),
  ["pollution", "application/json", '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"a":{"__proto__":[1]}}'],
  ["deep", "application/json", `${"[".repeat(10_000)}${"]".repeat(10_000)}`],
  ["deep objects", "application/json", `${'{"a":'.repeat(5_000)}1${"}".repeat(5_000)}`],
  ["one line", "application/json", json({ a: "x".repeat(1_000_000) })],
  ["many keys", "application/json", json(Object.fromEntries(Array.from({ length: 20_000 }, (_, at) => [`k${at}`, at])))],
  ["numbers", "application/json", '{"a":123456789012345678901234567890,"b":1e999,"c":-0,"d":1.0,"e":0.10}'],
  ["no JSON", "application/json", '{"a":<script>alert(1)</script>'],
  ["twice", "application/json", '{"a":1,"a":"<b>2</b>"}'],
  ["invalid UTF-8", "application/json", Buffer.from([0x22, 0xff, 0xfe, 0xc3, 0x28, 0xed, 0xa0, 0x80, 0x22])],
  ["bytes", "application/octet-stream", Buffer.from(Array.from({ length: 4096 }, (_, at) => at % 256))],
  ["XML", "application/xml", '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;"><!ENTITY e SYSTEM "https://evil.test/e">]><x onload="alert(1)">&b;&e;<script xmlns="http://www.w3.org/1999/xhtml">alert(1)</script></x>'],
  ["XML, deep", "text/xml", `${"<a>".repeat(20_000)}${"</a>".repeat(20_000)}`],
  ["SVG", "image/svg+xml", '<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(1)</script><image href="https://evil.test/a.png"/></svg>'],
  ["multipart", "multipart/form-data; boundary=b", MULTIPART],
  ["multipart without an end", "multipart/form-data; boundary=b", MULTIPART.slice(0, 80)],
  ["multipart, strange", 'multipart/form-data; boundary="<script>alert(1)</script>"', MULTIPART],
  ["form", "application/x-www-form-urlencoded", "a=%3Cscript%3Ealert(1)%3C%2Fscript%3E&%00=%ff&__proto__=1&b"],
  ["charset", "application/json; charset=<script>alert(1)</script>", '{"a":1}'],
  ["UTF-7", "text/html; charset=utf-7", "+ADw-script+AD4-alert(1)+ADw-/script+AD4-"],
  ["UTF-16", "application/json; charset=utf-16", Buffer.from('\ufeff{"a":"<b>"}', "utf16le")],
  ["bomb", "application/json", gzipSync(Buffer.alloc(50_000_000, 0x20)), "gzip"],
  ["no gzip", "application/json", "<script>alert(1)</script>", "gzip"],
  ["empty", "application/json", ""],
];
