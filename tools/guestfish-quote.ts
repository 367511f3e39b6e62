/** Quoting for guestfish lines and for the scripts it runs, byte by byte. */
import { PortError } from '../core/errors.ts';

/** Quotes one argument for guestfish: double quotes, every byte outside a safe set as `\xHH`. Throws USAGE on NUL. */
export function quote(argument: string | Buffer): string {
  const bytes = typeof argument === 'string' ? Buffer.from(argument, 'utf8') : argument;
  let out = '"';
  for (const byte of bytes) {
    if (byte === 0) throw new PortError('USAGE', 'a NUL byte cannot be part of an argument');
    const c = String.fromCharCode(byte);
    out += /[A-Za-z0-9_./=:,+@ -]/.test(c) ? c : `\\x${byte.toString(16).padStart(2, '0')}`;
  }
  return `${out}"`;
}

/** Quotes one argument for POSIX sh as bytes. */
export function shellQuote(argument: string | Buffer): Buffer {
  const bytes = typeof argument === 'string' ? Buffer.from(argument, 'utf8') : argument;
  if (bytes.includes(0)) throw new PortError('USAGE', 'a NUL byte cannot be part of an argument');
  const out: Buffer[] = [Buffer.from("'")];
  let from = 0;
  for (let at = bytes.indexOf(0x27); at !== -1; at = bytes.indexOf(0x27, from)) {
    out.push(bytes.subarray(from, at), Buffer.from("'\\''"));
    from = at + 1;
  }
  out.push(bytes.subarray(from), Buffer.from("'"));
  return Buffer.concat(out);
}

/** A script of ours with its arguments as `$1`, `$2` …; arguments are data. */
export function withArguments(script: string, args: readonly (string | Buffer)[]): Buffer {
  const quoted = args.flatMap((a) => [Buffer.from(' '), shellQuote(a)]);
  return Buffer.concat([Buffer.from('set --'), ...quoted, Buffer.from(`\n${script}\n`)]);
}
