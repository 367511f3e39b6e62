/** Checksums as operators give them: a digest, or the address of a list as coreutils and BSD write them. */
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import type { Digest } from './types.ts';

const HEX_DIGITS = { sha256: 64, sha512: 128 } as const;
const ALGORITHMS = ['sha256', 'sha512'] as const;

/** Reads `sha256:HEX`, `sha512:HEX` or the URL of a list. Throws USAGE. */
export function parseChecksum(text: string): Digest | { listUrl: URL } {
  const match = /^(sha256|sha512):([0-9a-f]+)$/i.exec(text);
  const algorithm = ALGORITHMS.find((name) => name === match?.[1]?.toLowerCase());
  const hex = match?.[2]?.toLowerCase();
  if (algorithm !== undefined && hex?.length === HEX_DIGITS[algorithm]) return { algorithm, hex };
  if (match === null && /^https?:\/\//.test(text) && URL.canParse(text)) return { listUrl: new URL(text) };
  throw new PortError('USAGE', `not a checksum: ${printable(text.replace(/\?.*/s, '?…')).slice(0, 200)}`, {
    hint: 'write sha256:HEX, sha512:HEX or https://…/SHA256SUMS',
  });
}

/** Undoes the escapes of coreutils: a line that starts with a backslash has \\, \n and \r in its name. */
function unescaped(name: string): string {
  return name.replace(/\\([\\nr])/g, (_, c: string) => (c === 'n' ? '\n' : c === 'r' ? '\r' : '\\'));
}

function lineOf(line: string): { name: string; hex: string; label?: string | undefined } | undefined {
  const escaped = line.startsWith('\\');
  const text = escaped ? line.slice(1) : line;
  const bsd = /^(SHA256|SHA512) \((.*)\) = ([0-9a-f]+)$/i.exec(text);
  const plain = /^([0-9a-f]+) [ *](.*)$/i.exec(text);
  const [name, hex] = bsd === null ? [plain?.[2], plain?.[1]] : [bsd[2], bsd[3]];
  if (name === undefined || hex === undefined) return undefined;
  return { name: escaped ? unescaped(name) : name, hex: hex.toLowerCase(), label: bsd?.[1]?.toLowerCase() };
}

/**
 * The digest of a file in a list, by the last part of its name. Lines of other kinds (comments, signatures, other
 * algorithms) are passed over; two digests of one algorithm that differ are refused. Throws SOURCE_REMOTE.
 */
export function findInList(list: string, fileName: string): Digest {
  const found = new Map<string, Digest>();
  for (const line of list.split(/\r?\n/)) {
    const entry = lineOf(line);
    if (entry === undefined || entry.name.replace(/^.*\//s, '') !== fileName) continue;
    const algorithm = ALGORITHMS.find((name) => HEX_DIGITS[name] === entry.hex.length);
    if (algorithm === undefined || (entry.label !== undefined && entry.label !== algorithm)) continue;
    const earlier = found.get(algorithm);
    if (earlier !== undefined && earlier.hex !== entry.hex) {
      throw new PortError('SOURCE_REMOTE', `the list of checksums names ${printable(fileName)} twice`, {
        hint: 'give the right one as --checksum sha256:HEX',
      });
    }
    found.set(algorithm, { algorithm, hex: entry.hex });
  }
  const digest = found.get('sha512') ?? found.get('sha256');
  if (digest !== undefined) return digest;
  throw new PortError('SOURCE_REMOTE', `the list of checksums does not name ${printable(fileName)}`, {
    hint: 'give it as --checksum sha256:HEX',
  });
}
