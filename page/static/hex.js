// Bytes as hexadecimal digits, sixteen in a line, and back. Pure.

const digits = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

/// `[offset, digits, text]` of the line that begins at `from`.
export function hexLine(bytes, from, base = 0) {
  let left = "", right = "";
  for (let i = 0; i < 16; i++) {
    const byte = bytes[from + i];
    left += (i === 8 ? "  " : i ? " " : "") + (byte === undefined ? "  " : digits[byte]);
    if (byte !== undefined) right += byte > 31 && byte < 127 ? String.fromCharCode(byte) : "·";
  }
  return [(base + from).toString(16).padStart(6, "0"), left, right];
}

/// For an editor: digits in pairs, sixteen in a line.
export function dump(bytes) {
  const out = [];
  for (let from = 0; from < bytes.length; from += 16) out.push(Array.from(bytes.subarray(from, from + 16), (byte) => digits[byte]).join(" "));
  return out.join("\n");
}

/// The bytes of digits with any white space between; `{bytes}` or `{line, message}`.
export function undump(text) {
  const found = text.replace(/\s+/g, ""), wrong = /[^0-9a-fA-F\s]/.exec(text);
  if (wrong) return { line: text.slice(0, wrong.index).split("\n").length, message: `“${wrong[0]}” is no hexadecimal digit` };
  if (found.length % 2) return { line: text.split("\n").length, message: "one digit of the last byte is missing" };
  const bytes = new Uint8Array(found.length / 2);
  for (let i = 0; i < bytes.length; i++) bytes[i] = parseInt(found.slice(2 * i, 2 * i + 2), 16);
  return { bytes };
}

/// Whether bytes are text that an editor can give back unchanged.
export function textOf(bytes) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    return /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/.test(text) ? null : text;
  } catch {
    return null;
  }
}

export function base64(bytes) {
  let text = "";
  for (let from = 0; from < bytes.length; from += 0x8000) text += String.fromCharCode.apply(null, bytes.subarray(from, from + 0x8000));
  return btoa(text);
}
