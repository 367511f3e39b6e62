/** What was proven to be free, with bounded memory. Everything that is not in it has to be read. */
import type { ByteRange } from '../../core/disk-source.ts';

/**
 * Most runs kept: 16 bytes each while they are gathered. When there are more, the smallest are forgotten, which only means that
 * their bytes are read.
 */
const MAX_RUNS = 512 * 1024;

/** Runs of free bytes, in any order, which may touch. */
export class FreeSpace {
  #starts: number[] = [];
  #ends: number[] = [];
  #smallestBytes = 1;
  #sorted = true;

  /** Adds a run. Runs of nothing are ignored. */
  add(startBytes: number, lengthBytes: number): void {
    if (lengthBytes < this.#smallestBytes) return;
    const last = this.#ends.length - 1;
    if (last >= 0 && this.#ends[last] === startBytes) {
      this.#ends[last] = startBytes + lengthBytes;
      return;
    }
    if (last >= 0 && startBytes < (this.#ends[last] ?? 0)) this.#sorted = false;
    this.#starts.push(startBytes);
    this.#ends.push(startBytes + lengthBytes);
    if (this.#starts.length >= MAX_RUNS) this.#shrink();
  }

  /** Calls back with each run, ascending and merged. */
  each(visit: (startBytes: number, endBytes: number) => void): void {
    this.#sort();
    for (let i = 0; i < this.#starts.length; i++) visit(this.#starts[i] ?? 0, this.#ends[i] ?? 0);
  }

  /** All runs of another, moved by `byBytes`. */
  addAll(other: FreeSpace, byBytes: number): void {
    other.each((start, end) => this.add(start + byBytes, end - start));
  }

  /** How much is free. */
  get bytes(): number {
    let sum = 0;
    this.each((start, end) => {
      sum += end - start;
    });
    return sum;
  }

  /** True when one of the ranges, which must be ascending, reaches into a free run. */
  overlaps(ranges: readonly ByteRange[]): boolean {
    this.#sort();
    let i = 0;
    for (const { startBytes, lengthBytes } of ranges) {
      while (i < this.#starts.length && (this.#ends[i] ?? 0) <= startBytes) i++;
      if (i < this.#starts.length && (this.#starts[i] ?? 0) < startBytes + lengthBytes) return true;
    }
    return false;
  }

  #sort(): void {
    if (this.#sorted) return;
    const order = Float64Array.from(this.#starts.keys());
    order.sort((a, b) => (this.#starts[a] ?? 0) - (this.#starts[b] ?? 0));
    const starts: number[] = [];
    const ends: number[] = [];
    for (const i of order) {
      const start = this.#starts[i] ?? 0;
      const end = this.#ends[i] ?? 0;
      const last = ends.length - 1;
      if (last >= 0 && start <= (ends[last] ?? 0)) ends[last] = Math.max(ends[last] ?? 0, end);
      else {
        starts.push(start);
        ends.push(end);
      }
    }
    this.#starts = starts;
    this.#ends = ends;
    this.#sorted = true;
  }

  #shrink(): void {
    this.#sort();
    while (this.#starts.length > MAX_RUNS / 2) {
      this.#smallestBytes *= 2;
      const keep = (_: number, i: number) =>
        (this.#ends[i] ?? 0) - (this.#starts[i] ?? 0) >= this.#smallestBytes;
      const starts = this.#starts.filter(keep);
      this.#ends = this.#ends.filter(keep);
      this.#starts = starts;
    }
  }
}

/** Ranges are widened to multiples of this: pages and the larger of the two sector sizes. */
const ALIGN_BYTES = 4096;

/** What is left of a disk without what is free: ascending, not touching, widened to whole 4 KiB. */
export function usedRanges(free: FreeSpace, sizeBytes: number): ByteRange[] {
  const used: ByteRange[] = [];
  let at = 0;
  free.each((start, end) => {
    const from = Math.ceil(start / ALIGN_BYTES) * ALIGN_BYTES;
    const to = end >= sizeBytes ? sizeBytes : Math.floor(end / ALIGN_BYTES) * ALIGN_BYTES;
    if (from >= to || from < at) return;
    if (from > at) used.push({ startBytes: at, lengthBytes: from - at });
    at = to;
  });
  if (at < sizeBytes) used.push({ startBytes: at, lengthBytes: sizeBytes - at });
  return used;
}
