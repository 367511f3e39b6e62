/** Rebuilds initramfs images that lack something, and proves the result by listing it. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { PortError } from '../../core/errors.ts';
import { DIR_MODE } from '../../core/files.ts';
import { formatBytes, MIB } from '../../core/sizes.ts';
import type { StageContext } from '../../core/stage.ts';
import type { Family } from '../../families/family.ts';
import { listInitramfs } from '../../tools/initramfs.ts';
import { repackInitramfs } from '../../tools/initramfs-repack.ts';
import type { KernelPlan } from './needs.ts';

/** Proof of one rebuilt initramfs. */
export interface RebuiltInitramfs {
  version: string;
  /** How many modules it holds. */
  modules: number;
  /** Of the platforms' modules, those it holds. */
  drivers: string[];
  bytes: number;
  compression: string;
  seconds: number;
}

/** A generic initramfs of today's distributions: with compression 35 to 90 MB. */
const GENERIC_BYTES = 96 * MIB;

/** Throws GUEST_FULL when /boot could not hold a generic initramfs beside the old one. */
export function requireBootSpace(ctx: StageContext, kernels: readonly KernelPlan[]): void {
  if (!kernels.some((k) => k.lacking.length > 0)) return;
  const device = (
    ctx.facts.mounts.find((m) => m.path === '/boot') ?? ctx.facts.mounts.find((m) => m.path === '/')
  )?.device;
  const free = ctx.facts.filesystems.find((f) => f.device === device)?.freeBytes;
  if (free !== undefined && free < GENERIC_BYTES) {
    throw new PortError(
      'GUEST_FULL',
      `/boot has ${formatBytes(free)} free, a new initramfs needs up to ${formatBytes(GENERIC_BYTES)}`,
      { hint: 'remove old kernels in the guest, then convert again' },
    );
  }
}

/** The proof with every module the initramfs holds, which is too long for the journal. */
export interface BuiltInitramfs extends RebuiltInitramfs {
  allModules: string[];
}

/** Rebuilds each kernel that lacks something. Throws GUEST_BROKEN naming kernel and modules. */
export async function rebuildLacking(
  ctx: StageContext,
  family: Family,
  kernels: readonly KernelPlan[],
): Promise<BuiltInitramfs[]> {
  const done: BuiltInitramfs[] = [];
  for (const plan of kernels) {
    if (plan.lacking.length === 0) continue;
    const kernel = ctx.facts.kernels.find((k) => k.version === plan.version);
    if (kernel?.initramfs === undefined)
      throw new PortError('BUG', `kernel ${plan.version} lost its initramfs`);
    ctx.signal.throwIfAborted();
    ctx.progress({ text: `building the initramfs of ${plan.version}` });
    const started = performance.now();
    const { repackLevel } = await family.rebuildInitramfs(ctx.guest, kernel);
    const proof = await proveInitramfs(ctx, kernel.initramfs, plan, repackLevel);
    const seconds = Math.round((performance.now() - started) / 100) / 10;
    done.push({ ...proof, seconds });
    ctx.change({
      path: kernel.initramfs,
      action: 'rebuild',
      why: `it had no ${plan.lacking.join(', ')}`,
    });
  }
  return done;
}

/**
 * Downloads and lists an initramfs, and puts it back as small as the guest would have made it.
 * Throws GUEST_BROKEN when it lacks something of the plan.
 */
async function proveInitramfs(
  ctx: StageContext,
  guestPath: string,
  plan: KernelPlan,
  repackLevel: number | undefined,
): Promise<Omit<BuiltInitramfs, 'seconds'>> {
  await fs.mkdir(ctx.paths.tmp, { recursive: true, mode: DIR_MODE });
  const built = path.join(ctx.paths.tmp, `initramfs-${process.pid}`);
  const packed = `${built}.packed`;
  try {
    await ctx.guest.download(guestPath, built);
    let listing = await listInitramfs(built, ctx.signal);
    const missing = plan.required.filter((m) => !listing.modules.includes(m));
    if (missing.length > 0) {
      throw new PortError(
        'GUEST_BROKEN',
        `the new initramfs of kernel ${plan.version} still has no ${missing.join(', ')}`,
        { hint: 'look below /etc for hooks or configuration of the initramfs that leave modules out' },
      );
    }
    const without = plan.extras.filter((m) => !listing.modules.includes(m));
    if (without.length > 0) {
      ctx.warn(
        `the new initramfs of kernel ${plan.version} has no ${without.join(', ')}: less usual disks of the platforms are not found`,
      );
    }
    if (repackLevel !== undefined && (await repackInitramfs(built, packed, repackLevel, ctx.signal))) {
      const small = await listInitramfs(packed, ctx.signal);
      if (small.files.join('\n') !== listing.files.join('\n')) {
        throw new PortError('BUG', `the initramfs of ${plan.version} changed while it was compressed`);
      }
      if (small.bytes < listing.bytes) {
        await ctx.guest.upload(packed, guestPath);
        listing = small;
      }
    }
    const { bytes, compression, modules } = listing;
    const wanted = ctx.platforms.flatMap(({ needs: n }) => [
      ...n.storageModules,
      ...(n.storageExtras ?? []),
      ...n.networkModules,
      ...n.optionalModules,
    ]);
    const drivers = [...new Set(wanted)].filter((m) => modules.includes(m)).sort();
    return {
      version: plan.version,
      modules: modules.length,
      drivers,
      bytes,
      compression,
      allModules: modules,
    };
  } finally {
    await fs.rm(built, { force: true });
    await fs.rm(packed, { force: true });
  }
}
