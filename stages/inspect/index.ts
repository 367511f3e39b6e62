/** Finds out what is on the disk, and mounts it. Writes `facts.json`. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { PortError } from '../../core/errors.ts';
import { Facts } from '../../core/facts.ts';
import { writeJson } from '../../core/files.ts';
import type { GuestSession } from '../../core/guest.ts';
import { Request } from '../../core/request.ts';
import type { Stage, StageContext } from '../../core/stage.ts';
import { printable } from '../../core/text.ts';
import type { CapturedDisk, CaptureResult } from '../../core/types.ts';
import { badRangeFacts } from './bad-ranges.ts';
import { bootloaderFacts, kernelFacts, listKernelInitramfs } from './boot.ts';
import { type Bundle, readBundle } from './bundle.ts';
import { findCandidates } from './candidates.ts';
import { diskNames, withRoles } from './disk-roles.ts';
import { mountGuest } from './mount.ts';
import { networkFacts } from './network.ts';
import { osFacts, userFacts } from './os.ts';
import { agentFacts, packageFacts } from './packages.ts';
import { findPages } from './pages.ts';
import { type Probe, parseProbe } from './probe.ts';
import { chooseRoot, familyOf, planMounts, refuseBroken } from './root.ts';
import { COLLECT, COUNT, PROBE } from './scripts.ts';
import { serviceFacts } from './services.ts';
import { diskFacts, filesystemFacts, volumeGroupFacts } from './storage.ts';

export { mountGuest } from './mount.ts';
export { summarize } from './summary.ts';

/** What inspect leaves in the journal; the facts themselves are in facts.json. */
export interface InspectResult {
  distro: string;
  version: string;
  firmware: Facts['firmware'];
  root: string;
  kernels: string[];
  candidates: { path: string; bytes: number }[];
}

/** What `inspect` needs of a stage context. */
export type InspectContext = Pick<StageContext, 'guest' | 'signal' | 'log' | 'warn' | 'progress'> & {
  /** In the order in which the appliance has them. */
  disks: readonly Pick<CapturedDisk, 'id' | 'path' | 'format' | 'virtualBytes' | 'badRanges'>[];
  tmpDir: string;
  root: string | undefined;
  /** What the user wants disks beside the system to be. */
  uses: Request['disks'];
  /** Names of the platforms it is for; they decide what a refusal advises. */
  targets?: readonly string[];
};

async function collect(guest: GuestSession, tmpDir: string): Promise<Bundle> {
  await guest.appliance(COLLECT);
  const file = path.join(tmpDir, 'guest-configuration.tar');
  try {
    await guest.download(`${guest.exchange}/inspect/bundle.tar`, file);
    return await readBundle(file);
  } finally {
    await fs.rm(file, { force: true });
  }
}

function warnAboutStorage(probe: Probe, facts: Pick<Facts, 'mounts'>, warn: (text: string) => void): void {
  for (const [device, header] of probe.ext) {
    if (/^Filesystem state:.*\berrors?\b/m.test(header))
      warn(`${device} is marked as having errors; run fsck on the server`);
  }
  for (const match of probe.mdstat.matchAll(/^(md\S+) :.*\n.*\[(U*_[U_]*)\]/gm)) {
    warn(`RAID /dev/${match[1]} is incomplete [${match[2]}]; it is converted as found`);
  }
  for (const [device, fields] of probe.contents) {
    if (fields.get('TYPE') === 'crypto_LUKS') warn(`${device} is encrypted and stays as it is`);
  }
  for (const [device, why] of probe.failed) {
    if (!facts.mounts.some((m) => m.device === device))
      warn(`${device} cannot be mounted: ${printable(why.trim())}`);
  }
}

function refuseReadOnly(bundle: Bundle): void {
  for (const line of bundle.list('mounts').toString('utf8').split('\n')) {
    const [device = '', point = '', , options = ''] = line.split(' ');
    if (point.startsWith('/sysroot') && options.split(',')[0] === 'ro') {
      throw new PortError(
        'GUEST_BROKEN',
        `the file system at ${printable(point.slice('/sysroot'.length) || '/')} can only be mounted read-only`,
        { hint: `it is damaged or marked read-only (${printable(device)}); run fsck on the server` },
      );
    }
  }
}

/** Inspects the disks in the appliance and leaves the guest mounted read-write. Errors as root.ts, mount.ts, os.ts. */
export async function inspectGuest(ctx: InspectContext): Promise<Facts> {
  const { guest } = ctx;
  ctx.progress({ text: 'looking for operating systems' });
  const probe = parseProbe(await guest.appliance(PROBE));
  refuseBroken(probe);
  const system = chooseRoot(probe, ctx.root, ctx.targets);
  const family = familyOf(system.release);
  const { mounts, warnings } = planMounts(probe, system, diskNames(ctx.disks));
  for (const text of warnings) ctx.warn(text);
  warnAboutStorage(probe, { mounts }, (text) => ctx.warn(text));
  await mountGuest(guest, { mounts });

  ctx.progress({ text: 'reading the configuration' });
  const bundle = await collect(guest, ctx.tmpDir);
  refuseReadOnly(bundle);
  const { disks, bootDisk, firmware } = withRoles(probe, diskFacts(probe, ctx.disks), mounts, ctx.uses);
  const os = osFacts(bundle, system.release, family);
  const bootloader = bootloaderFacts(bundle, mounts);
  const found = kernelFacts(bundle);
  if (found.length === 0) {
    throw new PortError('GUEST_BROKEN', 'the system has no kernel with modules in /boot', {
      hint: 'looked for /boot/vmlinuz-VERSION with /lib/modules/VERSION',
    });
  }
  if (bootloader.kind === 'none') {
    throw new PortError('GUEST_BROKEN', 'the system has no bootloader that is known', {
      hint: 'looked for /boot/grub/grub.cfg and /boot/grub2/grub.cfg',
    });
  }
  const packages = await packageFacts(guest, bundle, os);
  const users = userFacts(bundle);
  const services = serviceFacts(bundle);
  ctx.progress({ text: 'listing initramfs contents' });
  const kernels = await listKernelInitramfs(guest, found, ctx.tmpDir, ctx.signal, (text) => ctx.warn(text));
  const candidates = findCandidates(bundle, users, services);
  const counts = await guest.appliance(
    COUNT,
    candidates.map((c) => c.path),
  );
  for (const [i, line] of counts.trim().split('\n').entries()) {
    const candidate = candidates[i];
    if (candidate !== undefined) candidate.files = Number(line);
  }
  const filesystems = filesystemFacts(probe);
  return Facts.parse({
    schema: 'port-image/facts/1',
    disks,
    bootDisk,
    badRanges: await badRangeFacts(ctx, filesystems, mounts),
    firmware,
    volumeGroups: volumeGroupFacts(probe),
    filesystems,
    root: system.look.device,
    mounts,
    os,
    kernels,
    bootloader,
    network: networkFacts(bundle, services),
    agents: agentFacts(bundle, packages),
    services,
    users,
    packages,
    candidates,
    pages: await findPages(guest, bundle, services),
  } satisfies Facts);
}

/** The stage. */
export const stage: Stage<Record<string, never>, InspectResult> = {
  name: 'inspect',
  summary: 'finds the operating system and everything the other stages need to know about it',
  needs: ['capture'],
  inGuest: true,
  Options: Request.pick({ root: true, disks: true }),
  plan: async () => ({}),
  async run(ctx) {
    const capture = ctx.result<CaptureResult>('capture');
    if (capture === undefined) throw new PortError('BUG', 'inspect ran before capture');
    const found = await inspectGuest({
      guest: ctx.guest,
      signal: ctx.signal,
      log: ctx.log,
      warn: (text) => ctx.warn(text),
      progress: (event) => ctx.progress(event),
      disks: capture.disks,
      tmpDir: ctx.paths.tmp,
      root: ctx.request.root,
      uses: ctx.request.disks,
      targets: ctx.platforms.map((p) => p.name),
    });
    const { inventory, hardware } = capture;
    const facts = Facts.parse({ ...found, inventory, hardware });
    await writeJson(ctx.paths.facts, facts);
    return {
      distro: facts.os.distro,
      version: facts.os.version,
      firmware: facts.firmware,
      root: facts.root,
      kernels: facts.kernels.map((k) => k.version),
      candidates: facts.candidates.map(({ path: p, bytes }) => ({ path: p, bytes })),
    };
  },
};
