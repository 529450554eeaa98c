// The parts of a multipart body, and the fields of a form. Pure; bounded by the number of parts.

const MAX_PARTS = 1000, MAX_HEAD = 16_384;

/// The boundary that a content type names, or null.
export function boundary(contentType) {
  const match = /^multipart\/[\w.+-]+\s*(?:;.*)?;\s*boundary=(?:"([^"]{1,200})"|([^\s;]{1,200}))/i.exec(contentType ?? "");
  return match ? match[1] ?? match[2] : null;
}

/// `[{headers: [[name, value]], name, filename, type, bytes}]`. What cannot be read as parts gives none.
export function partsOf(bytes, mark) {
  const edge = new TextEncoder().encode(`--${mark}`), out = [];
  let at = findEdge(bytes, edge, 0);
  while (at >= 0 && out.length < MAX_PARTS) {
    let from = at + edge.length;
    if (bytes[from] === 45 && bytes[from + 1] === 45) break;
    from = bytes[from] === 13 ? from + 2 : from + 1;
    const next = findEdge(bytes, edge, from), to = next < 0 ? bytes.length : next - (bytes[next - 2] === 13 ? 2 : 1);
    out.push(part(bytes, from, Math.max(from, to)));
    at = next;
  }
  return out;
}

// What may follow a boundary: the end of the line, space, or the sign that it is the last one.
const ENDS = new Set([13, 10, 32, 9, 45]);

/// The next boundary at the beginning of a line.
function findEdge(bytes, edge, from) {
  for (let at = find(bytes, edge, from); at >= 0; at = find(bytes, edge, at + 1)) if ((at === 0 || bytes[at - 1] === 10) && ENDS.has(bytes[at + edge.length])) return at;
  return -1;
}

function part(bytes, from, to) {
  let end = from, body = from;
  for (let i = from; i < Math.min(to, from + MAX_HEAD); i++) {
    if (bytes[i] !== 10) continue;
    const isBlank = i === from || (i === from + 1 && bytes[from] === 13) || bytes[i - 1] === 10 || (bytes[i - 1] === 13 && bytes[i - 2] === 10);
    if (!isBlank) continue;
    [end, body] = [i, i + 1];
    break;
  }
  const headers = new TextDecoder().decode(bytes.subarray(from, end)).split(/\r?\n/).filter(Boolean).map((line) => {
    const colon = line.indexOf(":");
    return colon < 0 ? [line, ""] : [line.slice(0, colon).trim(), line.slice(colon + 1).trim()];
  });
  const one = (name) => headers.find(([key]) => key.toLowerCase() === name)?.[1] ?? "", disposition = one("content-disposition");
  const parameter = (name) => new RegExp(`;\\s*${name}="((?:[^"\\\\]|\\\\.)*)"`, "i").exec(disposition)?.[1] ?? null;
  return { headers, name: parameter("name"), filename: parameter("filename"), type: one("content-type"), bytes: bytes.subarray(body, to) };
}

function find(bytes, what, from) {
  for (let at = bytes.indexOf(what[0], from); at >= 0 && at + what.length <= bytes.length; at = bytes.indexOf(what[0], at + 1)) {
    let i = 1;
    while (i < what.length && bytes[at + i] === what[i]) i++;
    if (i === what.length) return at;
  }
  return -1;
}

/// The fields of a form, decoded: `[[name, value]]`.
export const fieldsOf = (text) => text.split("&").filter(Boolean).map((field) => {
  const at = field.indexOf("=");
  return at < 0 ? [decoded(field), ""] : [decoded(field.slice(0, at)), decoded(field.slice(at + 1))];
});

function decoded(text) {
  const plain = text.replace(/\+/g, " ");
  try {
    return decodeURIComponent(plain);
  } catch {
    return plain;
  }
}

/// Lines of an XML text, indented by what opens and closes: `{depth, parts: [[kind, text]]}`. Nothing is resolved.
export function* xmlLines(text) {
  let depth = 0;
  for (const [token] of text.matchAll(/<!--[\s\S]*?-->|<!\[CDATA\[[\s\S]*?\]\]>|<\?[\s\S]*?\?>|<(?:[^<>"']|"[^"]*"|'[^']*')*>|[^<]+|</g)) {
    if (!token.trim()) continue;
    const closes = token.startsWith("</"), opens = /^<[^!?/]/.test(token) && !token.endsWith("/>");
    if (closes) depth = Math.max(0, depth - 1);
    yield { depth: Math.min(depth, 60), parts: [[token.startsWith("<") ? "key" : "string", token.trim()]] };
    if (opens) depth++;
  }
}
