/** A limit of bytes per second over all lanes of an upload. */
import { pause } from '../../core/pause.ts';

/** What was not used is not saved up for longer than this. */
const MOST_CREDIT_MS = 1000;

/** Hands out time: each caller waits until its bytes are due. */
export class Pace {
  readonly #bytesPerSecond: number | undefined;
  #dueMs = 0;

  /** Undefined: no limit. */
  constructor(bytesPerSecond: number | undefined) {
    this.#bytesPerSecond = bytesPerSecond;
  }

  /** Waits until so many bytes may be sent. Throws INTERRUPTED. */
  async wait(bytes: number, signal: AbortSignal): Promise<void> {
    if (this.#bytesPerSecond === undefined) return;
    const now = performance.now();
    this.#dueMs = Math.max(this.#dueMs, now - MOST_CREDIT_MS);
    const at = this.#dueMs;
    this.#dueMs += (bytes / this.#bytesPerSecond) * 1000;
    if (at > now) await pause(at - now, signal);
  }
}
