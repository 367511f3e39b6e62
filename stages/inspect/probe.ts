/** What the PROBE script reports, as data. Everything here may have been written by a hostile guest. */
import * as z from 'zod';
import { type MappedRun, parseDmTables } from '../../tools/device-mapper.ts';
import { type PartitionTable, parsePartitionTable } from '../../tools/sfdisk.ts';

/** A block device of the appliance. Sizes in bytes. */
export interface BlockDevice {
  /** Kernel name, such as `sda1` or `dm-0`. */
  kernelName: string;
  /** Name to use: `/dev/sda1`, `/dev/mapper/vg-lv`. */
  device: string;
  /** `major:minor`. */
  number: string;
  sizeBytes: number;
  /** Where a partition starts on its disk. */
  startBytes: number | undefined;
  partition: number | undefined;
  /** Device mapper name. */
  mapperName: string | undefined;
}

/** What was seen in one file system, or one subvolume of it. */
export interface Look {
  device: string;
  /** btrfs subvolume path. */
  subvolume: string | undefined;
  /** First bytes of well-known text files, by path without leading `/`. */
  texts: Map<string, string>;
  /** Well-known paths that exist. */
  has: Set<string>;
}

/** A volume group as LVM reports it. */
export interface VolumeGroup {
  name: string;
  uuid: string;
  missing: number;
  physicalVolumes: string[];
  logicalVolumes: { name: string; device: string; sizeBytes: number }[];
}

/** Everything PROBE found. */
export interface Probe {
  blocks: BlockDevice[];
  tables: Map<string, PartitionTable>;
  mappings: Map<string, MappedRun[] | undefined>;
  volumeGroups: VolumeGroup[];
  /** blkid's fields by device. */
  contents: Map<string, Map<string, string>>;
  looks: Look[];
  space: Map<string, { sizeBytes: number; freeBytes: number; freeInodes: number }>;
  /** Devices that could not be mounted, with the reason. */
  failed: Map<string, string>;
  /** dumpe2fs header by device. */
  ext: Map<string, string>;
  /** First bytes of hiberfil.sys by device. */
  hiberfil: Map<string, string>;
  /** Output of `btrfs subvolume get-default` by device. */
  defaultSubvolume: Map<string, string>;
  mdstat: string;
  /** Disks whose first sector holds the code of a boot loader. */
  loaders: Set<string>;
  /** Kernel messages about replayed journals. */
  recovery: string;
}

const decode = (base64: string | undefined) => Buffer.from(base64 ?? '', 'base64').toString('utf8');

/**
 * The kernel of the appliance may letter its disks differently in each run; libguestfs names them in the order they
 * were attached. Returns the libguestfs name of a device name or kernel name.
 */
function deviceNames(order: readonly string[]): (name: string) => string {
  const letters = new Map(
    order.map((kernel, i) => [kernel.replace(/^\/dev\//, ''), `sd${String.fromCharCode(97 + i)}`]),
  );
  return (name) =>
    name.replace(
      /^(\/dev\/)?([shv]d[a-z]+)(\d*)$/,
      (whole, dev: string | undefined, disk: string, part: string) => {
        const named = letters.get(disk);
        return named === undefined ? whole : `${dev ?? ''}${named}${part}`;
      },
    );
}

const Report = z.object({
  report: z.array(
    z.object({
      vg: z
        .array(z.object({ vg_name: z.string(), vg_uuid: z.string(), vg_missing_pv_count: z.string() }))
        .default([]),
      pv: z.array(z.object({ pv_name: z.string() })).default([]),
      lv: z.array(z.object({ lv_name: z.string(), lv_size: z.string(), lv_dm_path: z.string() })).default([]),
    }),
  ),
});

function parseLvm(json: string, rename: (device: string) => string): VolumeGroup[] {
  let data: unknown;
  try {
    data = JSON.parse(json);
  } catch {
    return [];
  }
  const parsed = Report.safeParse(data);
  if (!parsed.success) return [];
  return parsed.data.report.flatMap((r) => {
    const [vg] = r.vg;
    if (vg === undefined || vg.vg_name === '') return [];
    return [
      {
        name: vg.vg_name,
        uuid: vg.vg_uuid,
        missing: Number(vg.vg_missing_pv_count),
        physicalVolumes: r.pv.map((p) => rename(p.pv_name)),
        logicalVolumes: r.lv.map((l) => ({
          name: l.lv_name,
          device: l.lv_dm_path,
          sizeBytes: Number(l.lv_size),
        })),
      },
    ];
  });
}

/** Reads `blkid -o export`. */
export function parseBlkid(
  text: string,
  rename = (device: string) => device,
): Map<string, Map<string, string>> {
  const devices = new Map<string, Map<string, string>>();
  for (const block of text.split(/\n\n+/)) {
    const fields = new Map<string, string>();
    for (const line of block.split('\n')) {
      const at = line.indexOf('=');
      // blkid escapes spaces and other odd characters with a backslash
      if (at > 0) fields.set(line.slice(0, at), line.slice(at + 1).replace(/\\(.)/g, '$1'));
    }
    const device = fields.get('DEVNAME');
    if (device !== undefined) devices.set(rename(device), fields);
  }
  return devices;
}

/** Reads what PROBE printed. Unknown records are ignored. */
export function parseProbe(output: string): Probe {
  const probe: Probe = {
    blocks: [],
    tables: new Map(),
    mappings: new Map(),
    volumeGroups: [],
    contents: new Map(),
    looks: [],
    space: new Map(),
    failed: new Map(),
    ext: new Map(),
    hiberfil: new Map(),
    defaultSubvolume: new Map(),
    mdstat: '',
    loaders: new Set(),
    recovery: '',
  };
  const looks = new Map<string, Look>();
  const look = (id: string) => {
    let found = looks.get(id);
    if (found === undefined) {
      const at = id.indexOf(':');
      found = {
        device: at === -1 ? id : id.slice(0, at),
        subvolume: at === -1 ? undefined : decode(id.slice(at + 1)),
        texts: new Map(),
        has: new Set(),
      };
      looks.set(id, found);
      probe.looks.push(found);
    }
    return found;
  };
  const lines = output.split('\n');
  const rename = deviceNames(lines.filter((l) => l.startsWith('disk\t')).map((l) => l.split('\t')[1] ?? ''));
  for (const line of lines) {
    const [kind, raw = '', b = '', c = '', d = '', e = '', f = ''] = line.split('\t');
    const at = raw.indexOf(':');
    const a = at === -1 ? rename(raw) : rename(raw.slice(0, at)) + raw.slice(at);
    switch (kind) {
      case 'block': {
        const mapperName = decode(f) || undefined;
        probe.blocks.push({
          kernelName: raw,
          device: mapperName === undefined ? `/dev/${a}` : `/dev/mapper/${mapperName}`,
          number: b,
          sizeBytes: Number(c) * 512,
          startBytes: d === '-' ? undefined : Number(d) * 512,
          partition: e === '-' ? undefined : Number(e),
          mapperName,
        });
        break;
      }
      case 'table':
        probe.tables.set(`/dev/${a}`, parsePartitionTable(decode(b), rename));
        break;
      case 'loader':
        probe.loaders.add(`/dev/${a}`);
        break;
      case 'dm':
        probe.mappings = parseDmTables(decode(raw));
        break;
      case 'lvm':
        probe.volumeGroups = parseLvm(decode(raw), rename);
        break;
      case 'md':
        probe.mdstat = decode(raw);
        break;
      case 'blkid':
        probe.contents = parseBlkid(decode(raw), rename);
        break;
      case 'ext':
        probe.ext.set(a, decode(b));
        break;
      case 'failed':
        probe.failed.set(a, decode(b));
        break;
      case 'space': {
        const [blockBytes = 0, blocks = 0, free = 0, inodes = 0] = b.split(' ').map(Number);
        probe.space.set(a, {
          sizeBytes: blockBytes * blocks,
          freeBytes: blockBytes * free,
          freeInodes: inodes,
        });
        look(a);
        break;
      }
      case 'file':
        if (b === 'head') probe.hiberfil.set(a, decode(d));
        else look(a).texts.set(c, decode(d));
        break;
      case 'has':
        look(a).has.add(b);
        break;
      case 'subvolume':
        look(`${a}:${b}`);
        break;
      case 'default':
        probe.defaultSubvolume.set(a, decode(b));
        break;
      case 'kernel':
        probe.recovery = decode(raw);
        break;
    }
  }
  return probe;
}
