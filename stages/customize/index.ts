/** Runs the user's own virt-customize commands, as one extra step on the finished disk. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import { fsyncPath, renameDurable, sha256File, temporaryName } from '../../core/files.ts';
import type { Stage } from '../../core/stage.ts';
import { workDisks } from '../../core/work-disks.ts';
import { libguestfsEnvironment, probeKvm } from '../../tools/kvm.ts';
import { createOverlay } from '../../tools/qemu-img.ts';
import { customize, readCommandFile } from '../../tools/virt-customize.ts';

/** What the stage intends. */
export interface CustomizePlan {
  file: string;
  sha256: string;
  commands: number;
}

/** What the stage leaves in the journal. */
export interface CustomizeResult {
  /** By id, the customised work disks (qcow2 on top of the work disks); what is encoded from here on. */
  disks: Record<string, string>;
  sha256: string;
}

/** The customised disk of a work disk: beside it, which stays as it was. */
export function customizedDisk(work: string): string {
  return work.replace(/\.qcow2$/, '.customized.qcow2');
}

/** The stage. */
export const stage: Stage<CustomizePlan | undefined, CustomizeResult | undefined> = {
  name: 'customize',
  summary: 'run the commands of --customize FILE on the finished disk',
  needs: ['inspect'],
  inGuest: false,
  Options: z.object({ customize: z.string().optional() }),
  async plan(ctx) {
    const file = ctx.request.customize;
    if (file === undefined) return undefined;
    const commands = await readCommandFile(file);
    for (const command of commands) {
      // Arguments may hold passwords: only the name and the line are shown.
      ctx.change({
        path: `${path.basename(file)}:${command.line}`,
        action: 'edit',
        why: `customisation: ${command.name}`,
      });
    }
    return { file, sha256: await sha256File(file, ctx.signal), commands: commands.length };
  },
  async run(ctx, plan) {
    if (plan === undefined) return undefined;
    const commands = await readCommandFile(plan.file);
    if ((await sha256File(plan.file, ctx.signal)) !== plan.sha256)
      throw new PortError('CONFIG', `${plan.file} changed since it was checked`);
    const disks = workDisks(ctx.paths, ctx.facts)
      .sort((a, b) => a.index - b.index)
      .map(({ id, path: work }) => {
        const disk = customizedDisk(work);
        return { id, work, disk, temporary: temporaryName(disk) };
      });
    ctx.progress({ text: `virt-customize, ${commands.length} commands` });
    try {
      for (const { work, temporary } of disks) {
        await createOverlay({ path: work, format: 'qcow2' }, temporary, { signal: ctx.signal, log: ctx.log });
      }
      const env = libguestfsEnvironment(await probeKvm());
      await customize({
        overlays: disks.map((d) => d.temporary),
        file: plan.file,
        env,
        signal: ctx.signal,
        log: ctx.log,
      });
      for (const { temporary, disk } of disks) {
        await fsyncPath(temporary);
        await renameDurable(temporary, disk);
      }
    } finally {
      for (const { temporary } of disks) await fs.rm(temporary, { force: true });
    }
    for (const command of commands) {
      ctx.change({
        path: `${path.basename(plan.file)}:${command.line}`,
        action: 'edit',
        why: `customisation: ${command.name}`,
      });
    }
    return { disks: Object.fromEntries(disks.map((d) => [d.id, d.disk])), sha256: plan.sha256 };
  },
};
