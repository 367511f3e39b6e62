/** A store that tells how much was read from it. */
import { pipeline, Transform } from 'node:stream';
import type { Store } from '../../drivers/stores/store.ts';

/** The same store; `onBytes` hears of every chunk that is read, with the key it belongs to. */
export function countedStore(store: Store, onBytes: (key: string, bytes: number) => void): Store {
  return {
    url: store.url,
    check: (bytes) => store.check(bytes),
    put: (key, content, options) => store.put(key, content, options),
    head: (key) => store.head(key),
    list: (prefix) => store.list(prefix),
    remove: (key) => store.remove(key),
    ids: () => store.ids(),
    get: async (key, options) => {
      const counter = new Transform({
        transform(chunk: Buffer, _encoding, done) {
          onBytes(key, chunk.length);
          done(null, chunk);
        },
      });
      // whoever reads the counter sees the error
      return pipeline(await store.get(key, options), counter, () => {});
    },
  };
}
