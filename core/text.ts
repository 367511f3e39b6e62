/** Text that came from a guest, a file name or a foreign program, made safe to print. */

const CONTROL = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffd]/gu;

/**
 * Escapes control bytes, terminal sequences and direction overrides, so hostile names cannot write to the
 * terminal, forge log lines or reverse text.
 */
export function printable(text: string): string {
  return text.replace(CONTROL, (c) => {
    const code = c.codePointAt(0) ?? 0;
    return code < 0x100
      ? `\\x${code.toString(16).padStart(2, '0')}`
      : `\\u${code.toString(16).padStart(4, '0')}`;
  });
}

/** A path of raw bytes as printable text: UTF-8 where valid, `\xHH` elsewhere. */
export function printableBytes(path: Uint8Array): string {
  const utf8 = Buffer.from(path).toString('utf8');
  if (!utf8.includes('\ufffd')) return printable(utf8);
  return Array.from(path, (b) =>
    b >= 0x20 && b < 0x7f ? String.fromCharCode(b) : `\\x${b.toString(16).padStart(2, '0')}`,
  ).join('');
}

const SECRET_LINE =
  /pass(?:word|wd|phrase|code)|\bpsk\b|secret|private[-_]?key|wireless-key|pbkdf2|token|api[-_]?key|\$(?:[1567y]|gy|2[abxy])\$|:\/\/[^\s/@:]*:[^\s/@]+@/i;

/** Text of a guest's file for journal and report: each line that may hold a secret is replaced, the rest stays. */
export function withoutSecrets(text: string): string {
  if (/-----BEGIN [A-Z0-9 ]*PRIVATE KEY/.test(text)) return '[left out: it holds a private key]';
  return text
    .split('\n')
    .map((line) => (SECRET_LINE.test(line) ? '[line left out: it may hold a secret]' : line))
    .join('\n');
}

/** The value of JSON text; undefined when it is none. */
export function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
