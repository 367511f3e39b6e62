/** LVM2 physical volumes. */
import type { ByteSource } from '../image-format/reader.ts';
import { fileSystemContent } from './content.ts';
import type { DiskState, Found } from './types.ts';

/** Content of a partition or a whole disk: a physical volume, or what may also lie in a logical one. */
export async function volumeContent(part: ByteSource, state: DiskState): Promise<Found> {
  return await fileSystemContent(part, state);
}
