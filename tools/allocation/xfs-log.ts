/** Whether an XFS log was closed by an unmount. Format and search: Linux fs/xfs/xfs_log_format.h, xfs_log_recover.c. */
import { MIB } from '../../core/sizes.ts';
import { type ByteSource, readExact } from '../image-format/reader.ts';

/** The log counts in these. */
const BLOCK = 512;
const RECORD_MAGIC = 0xfeedbabe;
const UNMOUNT_TRANS = 0x20;
/** A record header describes this much; longer records have more headers. */
const HEADER_COVERS_BYTES = 32 * 1024;

/** Every block begins with the number of the round it was written in; a record header has it after its magic. */
async function cycleOf(log: ByteSource, block: number): Promise<number> {
  const data = await readExact(log, block * BLOCK, 8, 'XFS log');
  const first = data.readUInt32BE(0);
  return first === RECORD_MAGIC ? data.readUInt32BE(4) : first;
}

/** First block that was not written in the newest round; the number of blocks when the newest round just ended. */
async function headOf(log: ByteSource, blocks: number): Promise<number> {
  const newest = await cycleOf(log, 0);
  if ((await cycleOf(log, blocks - 1)) === newest) return blocks;
  let newer = 0;
  let older = blocks - 1;
  while (older - newer > 1) {
    const middle = Math.floor((newer + older) / 2);
    if ((await cycleOf(log, middle)) === newest) newer = middle;
    else older = middle;
  }
  return older;
}

/** True when the last record of the log says that the file system was unmounted: nothing waits to be played back. */
export async function isLogClean(log: ByteSource): Promise<boolean> {
  const blocks = Math.floor(log.sizeBytes / BLOCK);
  if (blocks < 8) return false;
  const head = await headOf(log, blocks);
  const length = Math.min(head * BLOCK, MIB);
  const before = await readExact(log, head * BLOCK - length, length, 'XFS log');
  for (let at = length - BLOCK; at >= 0; at -= BLOCK) {
    if (before.readUInt32BE(at) !== RECORD_MAGIC) continue;
    const version = before.readUInt32BE(at + 8);
    const recordBytes = before.readUInt32BE(at + 12);
    const headers =
      (version & 2) === 0 ? 1 : Math.max(1, Math.ceil(before.readUInt32BE(at + 320) / HEADER_COVERS_BYTES));
    const data = at + headers * BLOCK;
    const endsAtHead = data + Math.ceil(recordBytes / BLOCK) * BLOCK === length;
    const operations = before.readUInt32BE(at + 40);
    return (
      endsAtHead &&
      operations === 1 &&
      data + 10 <= length &&
      (before.readUInt8(data + 9) & UNMOUNT_TRANS) !== 0
    );
  }
  // an unmount record that went round the end of the log is not looked for: then all of the file system is read
  return false;
}
