/** Disks that shall become data sets: each file system on them has to be one the guest mounts as a whole. */

import { DISK_RULE } from '../../core/data-set.ts';
import { PortError } from '../../core/errors.ts';
import type { Facts, Filesystem } from '../../core/facts.ts';
import type { GuestSession } from '../../core/guest.ts';
import type { Request } from '../../core/request.ts';
import { formatBytes, MIB } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import { useOf } from '../../core/work-disks.ts';
import { type GuestDataSet, STUB_NAME, stubText } from '../../tools/guest-side.ts';
import { type Choice, checkPath, keptPaths, safeUnits, unitsFor } from './choose.ts';

/** Extended partitions of an MBR hold others and nothing themselves. */
const CONTAINERS = new Set(['0x5', '0xf', '0x85']);
/** Smaller ones are reserved space of partitioning tools. */
const SMALL_BYTES = MIB;

function refuse(id: string, what: string): never {
  throw new PortError('USAGE', `${printable(id)} cannot become data sets: ${what}`, {
    hint: `--disk ${id}=image keeps the whole disk as an image, --disk ${id}=skip leaves it behind`,
  });
}

/** Refuses what nobody can tell: it would be lost. */
function refuseUnknown(facts: Facts, index: number, id: string): void {
  const disk = facts.disks[index];
  const known = new Set([
    ...facts.filesystems.map((f) => f.device),
    ...facts.volumeGroups.flatMap((g) => g.physicalVolumes),
  ]);
  const whole = `/dev/sd${String.fromCharCode(97 + index)}`;
  if (disk?.table === 'none' && !known.has(whole)) refuse(id, 'it holds no file system that is known');
  const volumes = facts.volumeGroups.filter((g) => g.disks?.includes(index)).flatMap((g) => g.logicalVolumes);
  const partitions = (disk?.partitions ?? []).filter(
    (p) => !CONTAINERS.has(p.type) && p.sizeBytes > SMALL_BYTES,
  );
  const unknown = [...partitions, ...volumes].find(({ device }) => !known.has(device));
  if (unknown !== undefined) {
    refuse(id, `${unknown.device} (${formatBytes(unknown.sizeBytes)}) holds no file system that is known`);
  }
}

function mountOf(facts: Facts, id: string, filesystem: Filesystem): string {
  const { device, type, sizeBytes } = filesystem;
  const [mount, second] = facts.mounts.filter((m) => m.device === device);
  const what = `${device} (${printable(type)}, ${formatBytes(sizeBytes)})`;
  if (mount === undefined) refuse(id, `${what} is mounted nowhere`);
  if (second !== undefined) refuse(id, `${what} is mounted several times`);
  if (mount.options !== undefined) refuse(id, `only a part of ${what} is mounted`);
  const inner = facts.mounts.find((m) => m !== mount && m.path.startsWith(`${mount.path}/`));
  if (inner !== undefined) {
    refuse(id, `another file system is mounted in ${printable(mount.path)}: ${printable(inner.path)}`);
  }
  return mount.path;
}

/** The mount points of those disks, as paths to strip. Throws USAGE, UNSAFE_PATH. */
export function dataDiskChoices(request: Pick<Request, 'dataMode'>, facts: Facts): Choice[] {
  const choices: Choice[] = [];
  for (const [index, { id, use }] of facts.disks.entries()) {
    if (use !== 'data') continue;
    refuseUnknown(facts, index, id);
    for (const filesystem of facts.filesystems) {
      // one over several disks comes with the first of them
      if (filesystem.disks?.[0] !== index || filesystem.type === 'swap') continue;
      const path = checkPath(mountOf(facts, id, filesystem), 'mount point');
      const known = facts.candidates.find((c) => c.path === path);
      choices.push({
        path,
        rule: DISK_RULE,
        reason: `content of disk ${printable(id)}`,
        neededBy: known === undefined ? unitsFor(path, facts) : safeUnits(known.neededBy),
        mode: request.dataMode,
        keep: keptPaths(path, facts),
      });
    }
  }
  return choices;
}

/** Bytes that come into the root file system with the data sets, and what it has free. */
export function spaceWarning(facts: Facts): string | undefined {
  const bytes = facts.filesystems
    .filter((f) => f.type !== 'swap' && useOf(facts, f) === 'data')
    .reduce((sum, f) => sum + (f.usedBytes ?? 0), 0);
  const free = facts.filesystems.find((f) => f.device === facts.root)?.freeBytes ?? 0;
  if (bytes <= free) return undefined;
  return `data of further disks (${formatBytes(bytes)}) is fetched into the root file system, which has ${formatBytes(free)} free: the instance needs a larger disk, and a root that grows with it`;
}

// $1 is the mounted folder, $2 where the kept paths go, the rest are kept paths. Prints mode, owner and group of the folder.
const SAVE = `
set -eu
LC_ALL=C; export LC_ALL
root=$1 kept=$2
shift 2
stat -c '%a %u %g' "$root"
rm -f "$kept"
[ $# -eq 0 ] || tar -C "$root" --numeric-owner --xattrs --acls -cf "$kept" --no-recursion -- "$@"
`;
const RESTORE = `
set -eu
mkdir -p "$1"
chown "$4:$5" "$1"
chmod "$3" "$1"
if [ -f "$2" ]; then tar -C "$1" --numeric-owner --xattrs --acls -xpf "$2"; rm -f "$2"; fi
`;
// Names of everything in the kept paths, folders above them first, in base64: an answer of the appliance ends at a NUL.
// $1 is the folder, the rest are kept paths.
const LIST_KEPT = `
set -euf
cd "$1"
shift
for p; do
  d=
  IFS=/; for part in \${p%/*}; do d=\${d:+$d/}$part; printf '%s\\0' "$d"; done; unset IFS
  find "$p" -xdev -print0
done | base64 -w0
`;
const KEPT = '/tmp/port-image-kept.tar';

async function keptNames(guest: GuestSession, folder: string, keep: readonly string[]): Promise<Buffer[]> {
  const list = Buffer.from(await guest.appliance(LIST_KEPT, [folder, ...keep]), 'base64').toString('latin1');
  const names = new Set(list.split('\0').filter((n) => n !== ''));
  return [...names].map((n) => Buffer.from(n, 'latin1'));
}

/**
 * Takes the file system of a data disk away from the guest. What stays of its content (`.ssh` of homes) and the note go
 * into the folder below, which gets owner and mode of the mounted one.
 */
export async function detachDisk(guest: GuestSession, set: GuestDataSet): Promise<void> {
  const folder = `/sysroot${set.path}`;
  const names = set.keep.length === 0 ? [] : await keptNames(guest, folder, set.keep);
  const [mode = '755', uid = '0', gid = '0'] = (await guest.appliance(SAVE, [folder, KEPT, ...names]))
    .trim()
    .split(' ');
  await guest.call('umount', [set.path]);
  await guest.appliance(RESTORE, [folder, KEPT, mode, uid, gid]);
  await guest.write(`${set.path}/${STUB_NAME}`, stubText(set), { mode: 0o644, uid: 0, gid: 0 });
}
