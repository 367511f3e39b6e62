/** Which firmware an image boots with, when no facts are at hand: read from its partition table. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { run } from '../../core/command.ts';

const SECTOR = 512;
/** GPT type GUIDs as they lie on the disk (first three fields little-endian). */
const ESP_GUID = '28732ac11ff8d211ba4b00a0c93ec93b';
const BIOS_BOOT_GUID = '4861682149646f6e744e656564454649';

/** Reads the first sectors of any format and decides; `bios` when nothing says UEFI. */
export async function firmwareOf(image: { path: string; format: string }): Promise<'bios' | 'uefi'> {
  const dir = await mkdtemp(path.join(tmpdir(), 'port-image-table-'));
  try {
    const head = path.join(dir, 'head');
    const io = [`if=${path.resolve(image.path)}`, `of=${head}`, `bs=${SECTOR}`, 'count=34'];
    await run('qemu-img', ['dd', '-f', image.format, '-O', 'raw', ...io], { timeoutMs: 60_000 });
    return firmwareFromTable(await readFile(head));
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

/** The decision from the first 34 sectors. */
export function firmwareFromTable(head: Buffer): 'bios' | 'uefi' {
  if (head.length < 34 * SECTOR) return 'bios';
  const types: string[] = [];
  if (head.toString('latin1', SECTOR, SECTOR + 8) === 'EFI PART') {
    // 128 entries of 128 bytes from sector 2: the layout every tool writes.
    for (let at = 2 * SECTOR; at + 128 <= head.length; at += 128)
      types.push(head.toString('hex', at, at + 16));
    return types.includes(ESP_GUID) && !types.includes(BIOS_BOOT_GUID) ? 'uefi' : 'bios';
  }
  for (let at = 446; at < 510; at += 16) types.push(head.toString('hex', at + 4, at + 5));
  const hasBootCode = head.subarray(0, 440).some((byte) => byte !== 0);
  return types.includes('ef') && !hasBootCode ? 'uefi' : 'bios';
}
