/** Heads of composed images are mostly zeros: those are taken from one object that is there already, not sent every night. */

/** Bytes of the object with zeros; longer runs are taken from it as far as it reaches. */
export const ZERO_BYTES = 256 * 1024;
/** A run that is not worth a part of its own. */
const LEAST_RUN_BYTES = 16 * 1024;
/** So many runs at most: Swift reads the tenth small part of an object at full speed, and later ones slowly. */
const MOST_RUNS = 4;
const STEP_BYTES = 512;

/** A piece: where it is in the bytes, and whether it is all zeros. */
export interface Piece {
  start: number;
  end: number;
  isZero: boolean;
}

/** Cuts bytes at their longest runs of zeros. The pieces are in order and cover everything. */
export function cutAtZeros(bytes: Buffer): Piece[] {
  const zeros = Buffer.alloc(STEP_BYTES);
  const runs: { start: number; end: number }[] = [];
  for (let start = 0; start < bytes.length; start += STEP_BYTES) {
    const end = Math.min(start + STEP_BYTES, bytes.length);
    if (!bytes.subarray(start, end).equals(zeros.subarray(0, end - start))) continue;
    const last = runs.at(-1);
    if (last?.end === start && end - last.start <= ZERO_BYTES) last.end = end;
    else runs.push({ start, end });
  }
  const taken = runs
    .filter(({ start, end }) => end - start >= LEAST_RUN_BYTES)
    .sort((a, b) => b.end - b.start - (a.end - a.start))
    .slice(0, MOST_RUNS)
    .sort((a, b) => a.start - b.start);
  const pieces: Piece[] = [];
  let at = 0;
  for (const { start, end } of taken) {
    if (start > at) pieces.push({ start: at, end: start, isZero: false });
    pieces.push({ start, end, isZero: true });
    at = end;
  }
  if (at < bytes.length) pieces.push({ start: at, end: bytes.length, isZero: false });
  return pieces;
}
