// JSON as it was written: lines for the eye, trees for comparing, and the place of a mistake. Pure.
//
// Numbers, escapes, repeated keys and their order stay as they are in the text; nothing goes through `JSON.parse`, which
// would change them. Nothing recurses, so that depth costs memory alone.

const TOKEN = /[\s]*(?:("(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")|(-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)|(true|false|null)|([{}[\],:]))/y;

export class JsonError extends Error {
  constructor(message, text, at) {
    const before = text.slice(0, at), line = before.split("\n").length;
    super(message);
    Object.assign(this, { at, line, column: at - before.lastIndexOf("\n") });
  }
}

const OPENS = { "}": "{", "]": "[" }, MORE = "a comma or an end";

/// The tokens of a text, checked against the grammar: `[kind, text]`, where the kind is `key`, `string`, `number`, `word`,
/// or the sign itself.
export function* tokens(text) {
  const stack = [];
  let at = text.charCodeAt(0) === 0xfeff ? 1 : 0, wants = "a value";
  const wrong = (place) => new JsonError(`${wants || "nothing"} should stand here`, text, place);
  for (;;) {
    TOKEN.lastIndex = at;
    const match = TOKEN.exec(text);
    if (!match) {
      const rest = text.slice(at).search(/\S/);
      if (rest < 0 && !wants) return;
      throw rest < 0 ? new JsonError("the text ends too early", text, text.length) : wrong(at + rest);
    }
    const [, string, number, word, sign] = match, token = string ?? number ?? word ?? sign, top = stack.at(-1), isKey = wants.startsWith("a key");
    at = TOKEN.lastIndex;
    const fits = OPENS[sign] ? top === OPENS[sign] && wants.includes(" or ") : sign === "," ? wants === MORE : sign === ":" ? wants === "a colon" : isKey ? string : wants.startsWith("a value");
    if (!fits) throw wrong(at - token.length);
    const kind = sign ?? (isKey ? "key" : string ? "string" : number ? "number" : "word");
    yield [kind, token];
    if (OPENS[sign]) stack.pop();
    else if (sign === "{" || sign === "[") stack.push(sign);
    wants = { ",": top === "{" ? "a key" : "a value", ":": "a value", "{": "a key or }", "[": "a value or ]", key: "a colon" }[kind] ?? (stack.length ? MORE : "");
  }
}

const DEEPEST = 60;

/// The lines of a text, indented: `{depth, parts: [[kind, text], …]}`. Beyond 60 levels the indent no longer grows.
export function* lines(text) {
  let parts = [], depth = 0, before = "";
  const flush = () => {
    const out = { depth: Math.min(depth, DEEPEST), parts };
    parts = [];
    return out;
  };
  for (const [kind, token] of tokens(text)) {
    const closes = kind === "}" || kind === "]", isEmpty = closes && (before === "{" || before === "[");
    if (closes && !isEmpty) {
      if (parts.length) yield flush();
      depth--;
    } else if ((before === "{" || before === "[") && !isEmpty) {
      yield flush();
      depth++;
    }
    parts.push([kind, kind === ":" ? ": " : token]);
    if (kind === ",") yield flush();
    before = kind;
  }
  if (parts.length) yield flush();
}

/// Null, or the mistake with its `line` and `column`.
export function mistake(text) {
  try {
    for (const token of tokens(text)) if (!token) break;
    return null;
  } catch (error) {
    if (error instanceof JsonError) return error;
    throw error;
  }
}

/// A tree: `{kind: "object", entries: [[key, node]]}`, `{kind: "array", items}`, or `{kind, text}`. Keys are as they
/// were written, decoded. Throws beyond `deepest` levels.
export function tree(text, deepest = 200) {
  const stack = [];
  let root = null, key = null;
  const place = (node) => {
    const top = stack[stack.length - 1];
    if (!top) root = node;
    else if (top.kind === "object") top.entries.push([key, node]);
    else top.items.push(node);
  };
  for (const [kind, token] of tokens(text)) {
    if (kind === "{" || kind === "[") {
      const node = kind === "{" ? { kind: "object", entries: [] } : { kind: "array", items: [] };
      place(node);
      stack.push(node);
      if (stack.length > deepest) throw new RangeError(`it is nested more than ${deepest} levels deep`);
    } else if (kind === "}" || kind === "]") stack.pop();
    else if (kind === "key") key = JSON.parse(token);
    else if (kind !== "," && kind !== ":") place({ kind, text: token });
  }
  return root;
}

/// How a text on one line is laid out for an editor, and brought back as it was written: `{text, back(text)}`, where only
/// white space between tokens differs; null where the text is no JSON, or is laid out already.
export function layout(text) {
  if (text.includes("\n")) return null;
  const join = (all, gap) => all.map(([kind, token]) => (kind === "," || kind === ":" ? token + gap : token)).join("");
  try {
    const all = [...tokens(text)], gap = ["", " "].find((one) => join(all, one) === text);
    if (gap === undefined) return null;
    const laid = [...lines(text)].map(({ depth, parts }) => "  ".repeat(depth) + parts.map(([, token]) => token).join("")).join("\n");
    return { text: laid, back: (edited) => join([...tokens(edited)], gap) };
  } catch (error) {
    if (error instanceof JsonError) return null;
    throw error;
  }
}
