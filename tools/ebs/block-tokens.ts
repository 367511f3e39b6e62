/** The tokens that blocks of a snapshot are asked for with: listed where they are wanted, a few lists kept. */
import type { BlockList, EbsApi } from './api.ts';

/** Blocks of one list: 1 GiB of a full disk. */
const LISTED_BLOCKS = 2048;
/** Lists that are kept: of the place that is read, and of places metadata is read from. */
const KEPT_LISTS = 8;

/** Finds tokens; a disk of 64 TiB has 134 million blocks, so they are never all known. */
export class BlockTokens {
  readonly #api: EbsApi;
  /** The one used last is the last. */
  #lists: BlockList[] = [];
  #listing: Promise<unknown> = Promise.resolve();

  constructor(api: EbsApi) {
    this.#api = api;
  }

  /** The list that tells about a block. Throws what `EbsApi.list` throws. */
  async listOf(index: number): Promise<BlockList> {
    // one after the other: blocks that are wanted together are nearly always in the same list
    const found = this.#listing.then(async () => {
      const list = this.#known(index) ?? (await this.#api.list(index, LISTED_BLOCKS));
      this.#lists = [...this.#lists.filter((l) => l !== list), list].slice(-KEPT_LISTS);
      return list;
    });
    this.#listing = found.catch(() => {});
    return found;
  }

  /** The token of a block; undefined when nothing is stored for it: it reads as zeros. */
  async of(index: number): Promise<string | undefined> {
    return (await this.listOf(index)).tokens.get(index);
  }

  /** Forgets the list with a token that was refused; the others of the list are as old. */
  forget(index: number, token: string): void {
    this.#lists = this.#lists.filter((list) => list.tokens.get(index) !== token);
  }

  #known(index: number): BlockList | undefined {
    return this.#lists.find((list) => list.from <= index && index < list.to);
  }
}
