/** Pax extended headers as bytes: tar-stream writes their values as UTF-8 text only, file names and xattrs are neither. */

const BLOCK = 512;

/** One record: keyword and raw value. */
export type PaxRecord = [keyword: string, value: string | Uint8Array];

/** `LENGTH KEYWORD=VALUE\n`, where LENGTH counts itself. The keyword is raw bytes as latin1, for names of xattrs. */
export function paxRecord(keyword: string, value: string | Uint8Array): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${keyword}=`, 'latin1'), Buffer.from(value), Buffer.from('\n')]);
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

/** Name of an xattr as GNU tar writes it into a keyword, where `=` would end it. */
export function xattrKeyword(name: string): string {
  return `SCHILY.xattr.${name.replaceAll('%', '%25').replaceAll('=', '%3D')}`;
}

/** Seconds with fraction, as pax wants: `-1.75`, `1700000000.000000001`. */
export function paxTime(ns: bigint): string {
  const sign = ns < 0n ? '-' : '';
  const abs = ns < 0n ? -ns : ns;
  const fraction = (abs % 1_000_000_000n).toString().padStart(9, '0').replace(/0+$/, '');
  return `${sign}${abs / 1_000_000_000n}${fraction === '' ? '' : `.${fraction}`}`;
}

function octal(buffer: Buffer, value: number, at: number, digits: number): void {
  buffer.write(`${value.toString(8).padStart(digits, '0')}\0`, at, 'latin1');
}

/** A whole extended header: its ustar block of type `x`, the records, the padding. */
export function paxHeader(records: readonly PaxRecord[]): Buffer {
  const body = Buffer.concat(records.map(([keyword, value]) => paxRecord(keyword, value)));
  const head = Buffer.alloc(BLOCK);
  head.write('PaxHeader', 0, 'latin1');
  octal(head, 0o644, 100, 7);
  octal(head, 0, 108, 7);
  octal(head, 0, 116, 7);
  octal(head, body.length, 124, 11);
  octal(head, 0, 136, 11);
  head.write('        x', 148, 'latin1');
  head.write('ustar\u000000', 257, 'latin1');
  const sum = head.reduce((total, byte) => total + byte, 0);
  head.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  const padding = Buffer.alloc((BLOCK - (body.length % BLOCK)) % BLOCK);
  return Buffer.concat([head, body, padding]);
}
