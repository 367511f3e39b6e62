/** A limit of bytes a second, shared by several streams. */

/** Counts bytes that passed and says how long to wait until the rate is right again. */
export class RateLimit {
  private readonly bytesPerMs: number;
  private freeAtMs = 0;

  constructor(bytesPerSecond: number) {
    this.bytesPerMs = bytesPerSecond / 1000;
  }

  /** Milliseconds to wait after so many bytes passed at `nowMs` (a monotonic clock). */
  passed(bytes: number, nowMs: number): number {
    this.freeAtMs = Math.max(this.freeAtMs, nowMs) + bytes / this.bytesPerMs;
    return this.freeAtMs - nowMs;
  }
}
