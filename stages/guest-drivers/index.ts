/** Makes the guest find its disks, its console and its way to boot on every chosen platform. */
import * as z from 'zod';
import type { Stage, StageContext } from '../../core/stage.ts';
import type { ModuleListing } from '../../core/types.ts';
import { applyEdits, mergeEdits, recordEdits } from '../../families/edits.ts';
import type { FileEdit } from '../../families/family.ts';
import { familyOf } from '../../families/registry.ts';
import { agentsToRemove } from './agents.ts';
import { bootloaderEdits } from './bootloader.ts';
import { deviceEdits } from './device-edits.ts';
import { copyFallbackLoader, type LoaderCopy, planFallbackLoader, recordCopies } from './fallback-loader.ts';
import { listModules } from './listings.ts';
import { type KernelPlan, menuKernels, planKernels, type UnitedNeeds, uniteNeeds } from './needs.ts';
import { type RebuiltInitramfs, rebuildLacking, requireBootSpace } from './rebuild.ts';

/** What the stage intends. */
export interface GuestDriversPlan {
  edits: FileEdit[];
  kernels: KernelPlan[];
  loaders: LoaderCopy[];
  /** Packages to remove. */
  remove: string[];
}

/** What the stage leaves in the journal. */
export interface GuestDriversResult {
  rebuilt: RebuiltInitramfs[];
  /** Kernels whose initramfs already had everything. */
  untouched: string[];
  removed: string[];
  kernelArguments: string[];
  /** What the finished image has of each module the platforms ask for. */
  listings: ModuleListing[];
}

function neededHere({ platforms, facts, request }: StageContext): UnitedNeeds {
  return uniteNeeds(platforms, {
    kernels: menuKernels(facts),
    keepsNetwork: request.network === 'keep',
  });
}

async function makePlan(ctx: StageContext, warn: (text: string) => void): Promise<GuestDriversPlan> {
  const { facts, guest } = ctx;
  const family = familyOf(facts.os);
  const needs = neededHere(ctx);
  for (const text of needs.notes) warn(text);
  const kernels = planKernels(facts, needs, warn);
  const loaders = await planFallbackLoader(guest, facts);
  const devices = await deviceEdits(guest, facts);
  for (const text of devices.warnings) warn(text);
  const modules = [...needs.storageModules, ...needs.storageExtras, ...needs.networkModules];
  const edits = [
    ...devices.edits,
    ...(await bootloaderEdits(guest, facts, needs, devices.names, warn)),
    ...(await family.configureBootloader(guest, facts)),
    ...(await family.configureInitramfs(guest, modules, facts)),
  ];
  return { edits: mergeEdits(edits), kernels, loaders, remove: agentsToRemove(ctx, family, needs, warn) };
}

function recordRest(ctx: StageContext, plan: GuestDriversPlan): void {
  recordCopies(ctx, plan.loaders);
  for (const name of plan.remove) {
    ctx.change({ path: name, action: 'remove', why: 'agent of the platform the server comes from' });
  }
}

/** The stage. */
export const stage: Stage<GuestDriversPlan, GuestDriversResult> = {
  name: 'guest-drivers',
  summary: 'drivers, boot loader, serial console and device names for the target platforms',
  needs: ['inspect'],
  inGuest: true,
  Options: z.object({ to: z.array(z.string()).min(1) }),

  async plan(ctx) {
    const plan = await makePlan(ctx, (text) => ctx.warn(text));
    requireBootSpace(ctx, plan.kernels);
    recordEdits(ctx, plan.edits);
    recordRest(ctx, plan);
    for (const kernel of plan.kernels) {
      if (kernel.lacking.length === 0) continue;
      ctx.change({
        path: ctx.facts.kernels.find((k) => k.version === kernel.version)?.initramfs ?? kernel.version,
        action: 'rebuild',
        why: `it has no ${kernel.lacking.join(', ')}`,
      });
    }
    return plan;
  },

  async run(ctx, plan) {
    const family = familyOf(ctx.facts.os);
    // Removing comes first, so that hooks of removed packages are not part of the new initramfs. It may change files the
    // plan has read (debconf answers), so the edits are computed once more from what is there now.
    if (plan.remove.length > 0) {
      ctx.progress({ text: `removing ${plan.remove.join(', ')}` });
      await family.removePackages(ctx.guest, plan.remove);
    }
    const now = await makePlan(ctx, (text) => ctx.warn(text));
    await applyEdits(ctx, now.edits);
    await copyFallbackLoader(ctx, plan.loaders);
    recordRest(ctx, plan);
    const built = await rebuildLacking(ctx, family, plan.kernels);
    const listings = await listModules(ctx, plan.kernels, built);
    return {
      rebuilt: built.map(({ allModules: _, ...proof }) => proof),
      listings,
      untouched: plan.kernels.filter((k) => k.lacking.length === 0).map((k) => k.version),
      removed: plan.remove,
      kernelArguments: neededHere(ctx).kernelArguments,
    };
  },
};
