/** Swap space: its header counts, nothing else; unless a suspended system lies in it. Format: Linux include/linux/swap.h. */
import { printable } from '../../core/text.ts';
import { type ByteSource, damaged, readExact } from '../image-format/reader.ts';
import { FreeSpace } from './free-space.ts';
import { uuidText } from './reading.ts';
import type { Found } from './types.ts';

/** Page sizes of Linux architectures: the signature stands at the end of the first page. */
export const SWAP_PAGE_BYTES = [4096, 8192, 16384, 65536] as const;

/** Reads a swap header. Throws DAMAGED for a header that does not fit. */
export async function parseSwap(part: ByteSource): Promise<Found> {
  const page = await readExact(part, 0, Math.min(65536, part.sizeBytes), 'swap header');
  const pageBytes = SWAP_PAGE_BYTES.find(
    (size) => size <= page.length && page.toString('latin1', size - 10, size) === 'SWAPSPACE2',
  );
  if (pageBytes === undefined) throw damaged(part, 'no swap header');
  // the first kilobyte is left to boot loaders, numbers follow the byte order of the machine
  const little = page.readUInt32LE(1024) === 1;
  if (!little && page.readUInt32BE(1024) !== 1) throw damaged(part, 'a swap header of another version');
  const lastPage = little ? page.readUInt32LE(1028) : page.readUInt32BE(1028);
  const usableBytes = (lastPage + 1) * pageBytes;
  if (lastPage < 1 || usableBytes > part.sizeBytes) throw damaged(part, 'a swap space larger than its place');
  const free = new FreeSpace();
  free.add(pageBytes, usableBytes - pageBytes);
  const label = page.toString('latin1', 1052, 1068).replace(/\0.*$/s, '');
  return {
    free,
    parts: [
      {
        startBytes: 0,
        sizeBytes: part.sizeBytes,
        kind: 'swap',
        ...(label === '' ? {} : { label: printable(label) }),
        uuid: uuidText(page.subarray(1036, 1052)),
        allocatedBytes: part.sizeBytes - free.bytes,
        how: 'header',
      },
    ],
  };
}
