/** Which packs are worth keeping: too many dead bytes in an image cost every reader, too many small packs cost requests. */
import { MIB } from '../../core/sizes.ts';
import type { BlockIndex } from '../../core/sync/block-index.ts';
import { storedBytes } from './pack.ts';
import { BlockTable } from './table.ts';

/** Dead bytes an image may carry along, as a part of its live ones. */
const MOST_DEAD = 0.3;
/** A pack under this is a part that Swift reads slowly when there are many of them. */
const SMALL_BYTES = MIB;
/** So many small packs may be there; the tenth small part of an object is the last one read at full speed. */
const MOST_SMALL = 8;

/**
 * The table without packs that are better stored anew: their blocks count as missing then. The deadest packs first, until the rest is
 * within bounds; small ones all at once when there are too many.
 */
export function worthKeeping(index: BlockIndex, table: BlockTable): BlockTable {
  const live = new Set<string>();
  for (let at = 0; at < index.count; at++) live.add(index.digestAt(at));
  const packs = [...table.packs()]
    .map(([id, blocks]) => {
      const bytes = blocks.reduce((sum, block) => sum + storedBytes(block), 0);
      const liveBytes = blocks.reduce(
        (sum, block) =>
          sum + (live.has(block.digest) && table.find(block.digest) === block ? storedBytes(block) : 0),
        0,
      );
      return { id, bytes, liveBytes, dead: bytes - liveBytes };
    })
    .filter((pack) => pack.liveBytes > 0);
  const left = new Set<string>();
  const small = packs.filter((pack) => pack.bytes < SMALL_BYTES);
  if (small.length > MOST_SMALL) for (const pack of small) left.add(pack.id);
  const totalLive = packs.reduce((sum, pack) => sum + pack.liveBytes, 0);
  let dead = packs.reduce((sum, pack) => sum + (left.has(pack.id) ? 0 : pack.dead), 0);
  for (const pack of packs.sort((a, b) => b.dead / b.bytes - a.dead / a.bytes)) {
    if (dead <= totalLive * MOST_DEAD) break;
    if (left.has(pack.id)) continue;
    left.add(pack.id);
    dead -= pack.dead;
  }
  const kept = new BlockTable();
  for (const [id, blocks] of table.packs()) if (!left.has(id)) kept.add(id, blocks);
  return kept;
}
