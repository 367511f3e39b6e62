/** `dmsetup table`: where the bytes of a mapped device lie. Only targets that keep bytes in order are followed. */

/** One run of a mapped device on another device. All in bytes. */
export interface MappedRun {
  startBytes: number;
  lengthBytes: number;
  /** `major:minor` of the device below. */
  device: string;
  offsetBytes: number;
}

const SECTOR = 512;

/**
 * Reads `dmsetup table` (all devices): name → runs, or name → undefined when a target is not linear
 * (crypt, raid, thin, snapshot, cache, stripes over several devices).
 */
export function parseDmTables(text: string): Map<string, MappedRun[] | undefined> {
  const tables = new Map<string, MappedRun[] | undefined>();
  for (const line of text.split('\n')) {
    const match = /^(.*?): (\d+) (\d+) (\S+) ?(.*)$/.exec(line);
    if (match === null) continue;
    const [, name = '', start, length, target = '', rest = ''] = match;
    const run = linearRun(Number(start) * SECTOR, Number(length) * SECTOR, target, rest.split(' '));
    const known = tables.has(name);
    const runs = tables.get(name);
    if (run === undefined || (known && runs === undefined)) tables.set(name, undefined);
    else tables.set(name, [...(runs ?? []), run]);
  }
  return tables;
}

function linearRun(
  startBytes: number,
  lengthBytes: number,
  target: string,
  args: readonly string[],
): MappedRun | undefined {
  // linear: DEVICE OFFSET; striped over one device: 1 CHUNK DEVICE OFFSET
  const [device, offset] =
    target === 'linear'
      ? [args[0], args[1]]
      : target === 'striped' && args[0] === '1'
        ? [args[2], args[3]]
        : [undefined, undefined];
  if (device === undefined || !/^\d+:\d+$/.test(device) || !/^\d+$/.test(offset ?? '')) return undefined;
  return { startBytes, lengthBytes, device, offsetBytes: Number(offset) * SECTOR };
}
