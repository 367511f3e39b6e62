/** Units of sizes in OVF descriptors. */

/** Words of OVF 0.9, as powers of two. */
const WORDS: Readonly<Record<string, number>> = {
  kilobytes: 10,
  megabytes: 20,
  gigabytes: 30,
  terabytes: 40,
};

/** The factor of a programmatic unit (DSP0004 annex C.1, `byte * 2^30`) or of an old word; undefined for an unknown one. */
export function unitBytes(unit: string): number | undefined {
  const text = unit.trim().toLowerCase().replace(/\s+/g, '');
  if (text === '' || text === 'byte' || text === 'bytes') return 1;
  if (Object.hasOwn(WORDS, text)) return 2 ** (WORDS[text] ?? 0);
  const match = /^bytes?\*(\d{1,4})\^(\d{1,2})$/.exec(text);
  const factor = match === null ? Number.NaN : Number(match[1]) ** Number(match[2]);
  return Number.isSafeInteger(factor) && factor > 0 ? factor : undefined;
}
