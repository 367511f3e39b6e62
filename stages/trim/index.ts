/** Gives unused blocks back, so that the encoded image holds only what is used, and no old secrets. */
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import type { Facts } from '../../core/facts.ts';
import type { Stage, StageContext } from '../../core/stage.ts';
import { useOf } from '../../core/work-disks.ts';

/** What the stage intends. */
export interface TrimPlan {
  /** Mount points whose free space is given back. */
  filesystems: { path: string; device: string; type: string }[];
  /** Swap areas that are made empty, with the identity they keep. */
  swaps: { device: string; uuid: string; label: string }[];
  /** Volume groups whose free extents are given back. */
  volumeGroups: string[];
}

/** What the stage leaves in the journal. */
export interface TrimResult {
  /** Bytes the file systems gave back, as fstrim counts: all free space, whether it held data or not. */
  trimmedBytes: number;
  filesystems: { path: string; bytes: number | undefined }[];
  /** Bytes of swap made empty. */
  swapBytes: number;
  /** Bytes of volume groups no logical volume uses. */
  volumeGroupBytes: number;
}

/** File systems whose driver in the appliance can tell the disk what is free. */
const TRIMMABLE: readonly string[] = [
  'ext2',
  'ext3',
  'ext4',
  'xfs',
  'btrfs',
  'f2fs',
  'vfat',
  'jfs',
  'nilfs2',
];

/** Prints the bytes given back, or \`unsupported\`. */
const FSTRIM = `
out=$(fstrim -v "/sysroot$1" 2>&1) || { case "$out" in *"not supported"*|*"Not supported"*) echo unsupported; exit 0;; esac; echo "$out" >&2; exit 1; }
echo "$out" | sed -n 's/.*(\\([0-9][0-9]*\\) bytes.*/\\1/p'
`;

/** Fills a group's free extents with a volume, gives that back and removes it. Metadata changes twice, data never. */
const FREE_EXTENTS = `
set -e
free=$(lvm vgs --noheadings --nosuffix --units b -o vg_free "$1" | tr -d ' ')
[ "\${free%%.*}" -gt 0 ] || { echo 0; exit 0; }
lvm lvcreate -q -y -Wn -Zn -an -l 100%FREE -n port_image_free "$1" >/dev/null 2>&1
lvm lvchange -q -ay "$1/port_image_free" >/dev/null 2>&1
ok=yes
blkdiscard "/dev/$1/port_image_free" 2>/dev/null || ok=no
lvm lvremove -q -f "$1/port_image_free" >/dev/null 2>&1
rm -f /sysroot/etc/lvm/backup/port_image_free
[ "$ok" = yes ] && echo "$free" || echo 0
`;

function planOf(facts: Facts): TrimPlan {
  const seen = new Set<string>();
  // disks that become data sets are no longer there
  const stays = (thing: { disks?: number[] | undefined }) => useOf(facts, thing) !== 'data';
  const filesystems = facts.mounts.flatMap(({ path, device }) => {
    const filesystem = facts.filesystems.find((f) => f.device === device);
    const type = filesystem?.type ?? '';
    if (filesystem !== undefined && !stays(filesystem)) return [];
    if (seen.has(device) || !(TRIMMABLE.includes(type) || device.startsWith('btrfsvol:'))) return [];
    seen.add(device);
    return [{ path, device, type }];
  });
  const swaps = facts.filesystems
    .filter((f) => f.type === 'swap' && stays(f) && /^[0-9a-f-]{36}$/i.test(f.uuid))
    .map(({ device, uuid, label }) => ({ device, uuid, label }));
  return { filesystems, swaps, volumeGroups: facts.volumeGroups.filter(stays).map((v) => v.name) };
}

function recordPlan(ctx: StageContext, plan: TrimPlan): void {
  for (const { path } of plan.filesystems) {
    ctx.change({ path, action: 'edit', why: 'free space given back; files are not touched' });
  }
  for (const { device } of plan.swaps) {
    ctx.change({
      path: device,
      action: 'rebuild',
      why: 'swap may hold memory of the old machine; UUID and label stay',
    });
  }
  for (const name of plan.volumeGroups) {
    ctx.change({ path: name, action: 'edit', why: 'unused extents of the volume group given back' });
  }
}

function parseBytes(output: string): number | undefined {
  const last = output.trim().split('\n').at(-1) ?? '';
  const bytes = Number.parseInt(last, 10);
  return Number.isSafeInteger(bytes) && bytes >= 0 ? bytes : undefined;
}

/**
 * Gives a swap area back and makes it again with its identity. Only API calls name the device: the appliance's kernel
 * may number disks differently, libguestfs translates. Returns the area's bytes. Throws APPLIANCE.
 */
async function emptySwap(ctx: StageContext, device: string, uuid: string, label: string): Promise<number> {
  const { guest } = ctx;
  if ((await guest.call('vfs-uuid', [device])).trim() !== uuid) {
    throw new PortError('APPLIANCE', `${device} is not the swap area that was found there`);
  }
  await guest.call('blkdiscard', [device]);
  await guest.call('mkswap', [device, ...(label === '' ? [] : [`label:${label}`]), `uuid:${uuid}`]);
  if ((await guest.call('vfs-uuid', [device])).trim() !== uuid) {
    throw new PortError('APPLIANCE', `swap on ${device} could not be made again`);
  }
  return Number(await guest.call('blockdev-getsize64', [device]));
}

/** The stage. */
export const stage: Stage<TrimPlan, TrimResult> = {
  name: 'trim',
  summary: 'free space given back, swap made empty',
  needs: ['inspect'],
  inGuest: true,
  Options: z.object({}),

  plan(ctx) {
    const plan = planOf(ctx.facts);
    recordPlan(ctx, plan);
    return Promise.resolve(plan);
  },

  async run(ctx, plan) {
    const result: TrimResult = { trimmedBytes: 0, filesystems: [], swapBytes: 0, volumeGroupBytes: 0 };
    await ctx.guest.call('sync');
    for (const { path } of plan.filesystems) {
      ctx.signal.throwIfAborted();
      ctx.progress({ text: `trimming ${path}` });
      const bytes = parseBytes(await ctx.guest.appliance(FSTRIM, [path]));
      if (bytes === undefined) ctx.log.info('file system cannot be trimmed', { path });
      result.filesystems.push({ path, bytes });
      result.trimmedBytes += bytes ?? 0;
    }
    for (const { device, uuid, label } of plan.swaps) {
      ctx.signal.throwIfAborted();
      ctx.progress({ text: `emptying swap on ${device}` });
      result.swapBytes += await emptySwap(ctx, device, uuid, label);
    }
    for (const name of plan.volumeGroups) {
      ctx.signal.throwIfAborted();
      result.volumeGroupBytes += parseBytes(await ctx.guest.appliance(FREE_EXTENTS, [name])) ?? 0;
    }
    recordPlan(ctx, plan);
    return result;
  },
};
