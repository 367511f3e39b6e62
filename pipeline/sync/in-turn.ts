/** Work of one name, one after the other. */
import { PortError } from '../../core/errors.ts';

/** Who works on what. */
export class InTurn {
  readonly #last = new Map<string, Promise<void>>();

  /** Waits until nobody works on `name`, then works. Throws INTERRUPTED when the signal fires before. */
  async run<T>(name: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    const before = this.#last.get(name);
    const { promise, resolve } = Promise.withResolvers<void>();
    const mine = (before ?? Promise.resolve()).then(() => promise);
    this.#last.set(name, mine);
    try {
      await before;
      if (signal.aborted) throw new PortError('INTERRUPTED', 'interrupted');
      return await work();
    } finally {
      resolve();
      if (this.#last.get(name) === mine) this.#last.delete(name);
    }
  }
}
