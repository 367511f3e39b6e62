/** The pace of a pass: how fast it may go, and how fast it goes. */
import { pause } from '../../core/pause.ts';

/** Lets so many bytes through in a second. */
export class Pace {
  readonly #bytesPerMs: number;
  #freeAt = 0;

  constructor(bytesPerSecond: number | undefined) {
    this.#bytesPerMs = (bytesPerSecond ?? Number.POSITIVE_INFINITY) / 1000;
  }

  /** Waits until these bytes may be read. Time that nobody used is not saved up. Throws INTERRUPTED. */
  async take(bytes: number, signal: AbortSignal): Promise<void> {
    if (!Number.isFinite(this.#bytesPerMs)) return;
    const now = performance.now();
    const wait = this.#freeAt - now;
    this.#freeAt = Math.max(now, this.#freeAt) + bytes / this.#bytesPerMs;
    if (wait > 0) await pause(wait, signal);
  }
}

/** How a pass gets on. */
export interface PassSpeed {
  /** Mean of this run; 0 during its first second. */
  bytesPerSecond: number;
  /** Undefined while there is no speed to tell it from. */
  secondsLeft: number | undefined;
}

/** Told of progress: bytes in use that were dealt with, of all bytes in use. */
export type OnPassProgress = (doneBytes: number, totalBytes: number, speed: PassSpeed) => void;

const TELL_EVERY_MS = 500;

/** Counts bytes and tells at most twice a second. */
export class PassProgress {
  readonly #tell: OnPassProgress | undefined;
  readonly #startedAt = performance.now();
  #toldAt = 0;
  #doneBytes = 0;
  #earlierBytes = 0;
  totalBytes = 0;

  constructor(tell: OnPassProgress | undefined) {
    this.#tell = tell;
  }

  /** Bytes an earlier run dealt with. */
  skip(bytes: number): void {
    this.#doneBytes += bytes;
    this.#earlierBytes += bytes;
  }

  add(bytes: number): void {
    this.#doneBytes += bytes;
    if (performance.now() - this.#toldAt >= TELL_EVERY_MS) this.now();
  }

  /** Tells how it stands, whenever it was told last. */
  now(): void {
    this.#toldAt = performance.now();
    const seconds = (this.#toldAt - this.#startedAt) / 1000;
    const bytesPerSecond = seconds < 1 ? 0 : (this.#doneBytes - this.#earlierBytes) / seconds;
    const secondsLeft = bytesPerSecond > 0 ? (this.totalBytes - this.#doneBytes) / bytesPerSecond : undefined;
    this.#tell?.(this.#doneBytes, this.totalBytes, { bytesPerSecond, secondsLeft });
  }
}
