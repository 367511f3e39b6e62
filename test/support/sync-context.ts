/** The context of a sync for tests, which keeps what it was told. */
import { silentLog } from '../../core/log.ts';
import type { ListContext } from '../../core/sync/types.ts';
import { printable } from '../../core/text.ts';

/** A context, its warnings, and how to stop it. */
export function syncContext(): ListContext & { warnings: string[]; texts: string[]; abort(): void } {
  const stop = new AbortController();
  const warnings: string[] = [];
  const texts: string[] = [];
  return {
    signal: stop.signal,
    log: silentLog,
    progress: ({ text }) => {
      if (text !== undefined) texts.push(text);
    },
    warn: (text) => warnings.push(text),
    leaveOut: (what, { message }) => warnings.push(`${printable(what)} is left out: ${message}`),
    warnings,
    texts,
    abort: () => stop.abort(),
  };
}

/** A memory of digests that counts what was learned. */
export class CountedDigests {
  readonly known = new Map<string, string>();
  /** Digests and headers that had to be read. */
  learned = 0;

  get(key: string): string | undefined {
    return this.known.get(key);
  }

  set(key: string, value: string): void {
    this.learned++;
    this.known.set(key, value);
  }
}
