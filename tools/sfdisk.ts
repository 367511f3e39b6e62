/** `sfdisk --json`: partition tables as data. */
import * as z from 'zod';
import type { Facts } from '../core/facts.ts';

const Output = z.object({
  partitiontable: z.object({
    label: z.string(),
    sectorsize: z.number().int().positive().default(512),
    partitions: z
      .array(
        z.object({
          node: z.string(),
          start: z.number().int().nonnegative(),
          size: z.number().int().nonnegative(),
          type: z.string(),
          uuid: z.string().optional(),
          bootable: z.boolean().optional(),
        }),
      )
      .default([]),
  }),
});

/** A partition table. `none` when the disk has no table sfdisk knows. */
export interface PartitionTable {
  table: 'gpt' | 'dos' | 'none';
  partitions: Facts['disks'][number]['partitions'];
}

/** Type of the BIOS boot partition of a GPT disk. */
export const BIOS_BOOT_TYPE = '21686148-6449-6E6F-744E-656564454649';
/** Type of the EFI system partition of a GPT disk. */
export const ESP_TYPE = 'C12A7328-F81F-11D2-BA4B-00A0C93EC93B';

/**
 * Reads the output of `sfdisk --json`; an empty or unknown one means no partition table.
 * `rename` gives the name to use for a partition's device.
 */
export function parsePartitionTable(
  json: string,
  rename: (device: string) => string = (device) => device,
): PartitionTable {
  let data: unknown;
  try {
    data = JSON.parse(json);
  } catch {
    return { table: 'none', partitions: [] };
  }
  const parsed = Output.safeParse(data);
  if (!parsed.success) return { table: 'none', partitions: [] };
  const { label, sectorsize, partitions } = parsed.data.partitiontable;
  if (label !== 'gpt' && label !== 'dos') return { table: 'none', partitions: [] };
  return {
    table: label,
    partitions: partitions.map((p) => ({
      number: Number(/(\d+)$/.exec(p.node)?.[1] ?? 0),
      device: rename(p.node),
      startBytes: p.start * sectorsize,
      sizeBytes: p.size * sectorsize,
      type: label === 'gpt' ? p.type.toUpperCase() : `0x${p.type.toLowerCase().padStart(2, '0')}`,
      ...(p.uuid === undefined ? {} : { guid: p.uuid.toUpperCase() }),
      bootable: p.bootable ?? false,
    })),
  };
}
