/** Block devices of a machine: what each is, and which disks it lies on. */
import * as path from 'node:path';
import type { InventoryDevice, InventoryDisk, InventoryPartition } from '../../../core/inventory.ts';
import { count, type Facts, factsByName, lines, type Sections, some } from './sections.ts';

/** The kernel counts `size` and `start` in this unit, whatever the sector of the disk. */
const KERNEL_SECTOR_BYTES = 512;

/** Devices without hardware behind them; optical and floppy drives are no disks either. */
const NO_DISK = /^(loop|ram|zram|dm-|md|sr|fd|nbd|mtdblock|drbd|bcache)/;

/** Levels of devices over devices that are followed; a real machine has four or five. */
const MAX_DEPTH = 16;

/** A block device as it was told. */
export interface BlockNode {
  name: string;
  facts: Facts;
  /** Names of the whole disks it lies on. */
  disks: string[];
}

/** All of them, by kernel name. */
export type BlockNodes = ReadonlyMap<string, BlockNode>;

/** First value of a fact. */
function one(facts: Facts, key: string): string | undefined {
  return some(facts.get(key)?.[0]);
}

/** A property of udev or blkid, decoded. */
export function property(node: BlockNode, key: string): string | undefined {
  const line = node.facts.get('udev')?.find((l) => l.startsWith(`E:${key}=`));
  return some(
    line
      ?.slice(key.length + 3)
      .replaceAll(/\\x([0-9a-f]{2})/g, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16))),
  );
}

function parents(name: string, facts: Facts, all: ReadonlyMap<string, Facts>): string[] {
  if (facts.has('partition')) {
    const parent = path.basename(path.dirname(one(facts, 'path') ?? ''));
    return all.has(parent) ? [parent] : [];
  }
  return (facts.get('slave') ?? []).filter((s) => s !== name && all.has(s));
}

function disksUnder(name: string, all: ReadonlyMap<string, Facts>, depth = 0): string[] {
  const facts = all.get(name);
  if (facts === undefined || depth > MAX_DEPTH) return [];
  const below = parents(name, facts, all);
  if (below.length > 0) return [...new Set(below.flatMap((p) => disksUnder(p, all, depth + 1)))];
  return NO_DISK.test(name) || facts.has('partition') ? [] : [name];
}

/** Reads the section `block`. */
export function blockNodes(sections: Sections): BlockNodes {
  const all = factsByName(lines(sections, 'block'));
  const nodes = new Map<string, BlockNode>();
  for (const [name, facts] of all) {
    if (count(one(facts, 'size')) > 0) nodes.set(name, { name, facts, disks: disksUnder(name, all) });
  }
  return nodes;
}

/** The device of a number (`8:1`) or a path (`/dev/mapper/vg0-root`, `/dev/sda1`). */
export function nodeOf(nodes: BlockNodes, numberOrPath: string): BlockNode | undefined {
  const base = path.basename(numberOrPath);
  for (const node of nodes.values()) {
    if (one(node.facts, 'dev') === numberOrPath || (numberOrPath.startsWith('/dev/') && node.name === base))
      return node;
    if (numberOrPath.startsWith('/dev/mapper/') && one(node.facts, 'dm/name') === base) return node;
  }
  return undefined;
}

function sizeOf(node: BlockNode): number {
  return count(one(node.facts, 'size')) * KERNEL_SECTOR_BYTES;
}

function partitionsOf(disk: string, nodes: BlockNodes): InventoryPartition[] {
  return [...nodes.values()]
    .filter((n) => n.facts.has('partition') && n.disks.includes(disk))
    .map((node) => ({
      name: node.name,
      number: count(one(node.facts, 'partition')),
      startBytes: count(one(node.facts, 'start')) * KERNEL_SECTOR_BYTES,
      sizeBytes: sizeOf(node),
      type: property(node, 'ID_PART_ENTRY_TYPE'),
      uuid: property(node, 'ID_PART_ENTRY_UUID'),
      label: property(node, 'ID_PART_ENTRY_NAME'),
    }))
    .sort((a, b) => a.startBytes - b.startBytes);
}

function transportOf(node: BlockNode): string | undefined {
  const where = one(node.facts, 'path') ?? '';
  if (/\/virtio\d+\//.test(where)) return 'virtio';
  if (node.name.startsWith('nvme')) return 'nvme';
  if (where.includes('/usb')) return 'usb';
  if (/\/vbd-/.test(where)) return 'xen';
  if (/\/mmc/.test(where)) return 'mmc';
  return property(node, 'ID_BUS') ?? (/\/ata\d/.test(where) ? 'ata' : undefined);
}

/** Whole disks; what uses them is filled in by the caller. */
export function disksOf(nodes: BlockNodes, sections: Sections): InventoryDisk[] {
  const linked = lines(sections, 'links').map((l) => l.split('\t'));
  return [...nodes.values()]
    .filter((n) => n.disks.length === 1 && n.disks[0] === n.name)
    .map((node) => ({
      name: node.name,
      links: [
        ...new Set([
          ...(node.facts.get('udev') ?? [])
            .filter((l) => l.startsWith('S:disk/'))
            .map((l) => `/dev/${l.slice(2)}`),
          ...linked.filter(([to = '']) => path.basename(to) === node.name).map(([, link = '']) => link),
        ]),
      ].sort(),
      sizeBytes: sizeOf(node),
      sectorBytes: count(one(node.facts, 'queue/logical_block_size'), KERNEL_SECTOR_BYTES),
      vendor: one(node.facts, 'device/vendor'),
      model: one(node.facts, 'device/model') ?? property(node, 'ID_MODEL'),
      serial:
        one(node.facts, 'device/serial') ??
        // virtio
        one(node.facts, 'serial') ??
        property(node, 'ID_SERIAL_SHORT') ??
        property(node, 'ID_SERIAL'),
      transport: transportOf(node),
      rotational: one(node.facts, 'queue/rotational') === '1',
      removable: one(node.facts, 'removable') === '1',
      readOnly: one(node.facts, 'ro') === '1',
      table: property(node, 'ID_PART_TABLE_TYPE'),
      partitions: partitionsOf(node.name, nodes),
      writtenThrough: [],
      usedBy: [],
    }));
}

function kindOf(node: BlockNode): InventoryDevice['kind'] {
  if (node.facts.has('partition')) return 'partition';
  if (node.name.startsWith('md')) return 'raid';
  if (node.name.startsWith('loop')) return 'loop';
  if (node.name.startsWith('dm-')) {
    const uuid = (one(node.facts, 'dm/uuid') ?? '').toLowerCase();
    if (uuid.startsWith('lvm-')) return 'lvm';
    if (uuid.startsWith('crypt-')) return 'crypt';
    return uuid.startsWith('mpath-') ? 'multipath' : 'mapped';
  }
  return node.disks[0] === node.name ? 'disk' : 'other';
}

/** All devices that hold or could hold something. */
export function devicesOf(nodes: BlockNodes): InventoryDevice[] {
  return [...nodes.values()].map((node) => {
    const mapped = one(node.facts, 'dm/name');
    return {
      name: node.name,
      // a slash in a name is written `!` by the kernel: cciss!c0d0
      path: mapped === undefined ? `/dev/${node.name.replaceAll('!', '/')}` : `/dev/mapper/${mapped}`,
      kind: kindOf(node),
      sizeBytes: sizeOf(node),
      disks: node.disks,
      content: property(node, 'ID_FS_TYPE'),
      uuid: property(node, 'ID_FS_UUID'),
      label: property(node, 'ID_FS_LABEL'),
    };
  });
}
