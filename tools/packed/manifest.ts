/** The manifest of an OVF package (DSP0243, "Package manifest"): `SHA256(name)= hex`, one line for each file. */
import { printable } from '../../core/text.ts';

/** Digest algorithms of the specification, as node:crypto names them. */
export type DigestAlgorithm = 'sha1' | 'sha256' | 'sha512';

/** A digest that a file must have. */
export interface ExpectedDigest {
  algorithm: DigestAlgorithm;
  /** Hexadecimal, lower case. */
  hex: string;
}

/** Largest manifest read; one line takes some 100 bytes. */
export const MAX_MANIFEST_BYTES = 1024 * 1024;

const HEX_DIGITS: Readonly<Record<DigestAlgorithm, number>> = { sha1: 40, sha256: 64, sha512: 128 };
// VMware and VirtualBox write a space behind the equals sign, or two in front of it
const LINE = /^(SHA1|SHA256|SHA512) ?\((.+)\) ?= ?([0-9a-f]+)$/i;

/** Digests by file name. Lines nobody understands are told, since what they were to protect is not protected. */
export function parseManifest(
  content: string,
  warn: (text: string) => void,
): ReadonlyMap<string, readonly ExpectedDigest[]> {
  const digests = new Map<string, ExpectedDigest[]>();
  for (const raw of content.split('\n')) {
    const line = raw.trim();
    if (line === '') continue;
    const match = LINE.exec(line);
    const algorithm = match?.[1]?.toLowerCase() as DigestAlgorithm | undefined;
    const [, , name, hex] = match ?? [];
    if (algorithm === undefined || name === undefined || hex?.length !== HEX_DIGITS[algorithm]) {
      warn(`manifest line not understood: ${printable(line).slice(0, 200)}`);
      continue;
    }
    const list = digests.get(name) ?? [];
    list.push({ algorithm, hex: hex.toLowerCase() });
    digests.set(name, list);
  }
  return digests;
}
