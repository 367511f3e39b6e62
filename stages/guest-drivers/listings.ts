/** What the finished image has of every module a platform asks for: the proof for hardware no emulator shows. */
import type { StageContext } from '../../core/stage.ts';
import type { ModuleListing } from '../../core/types.ts';
import { readModulesDep } from '../../tools/modules-dep.ts';
import type { KernelPlan } from './needs.ts';
import type { BuiltInitramfs } from './rebuild.ts';

const fold = (name: string) => name.replaceAll('-', '_');

/** Lists them for each kernel of the boot menu, from the initramfs as it is now and the guest's modules.dep. */
export async function listModules(
  ctx: Pick<StageContext, 'guest' | 'facts' | 'platforms'>,
  kernels: readonly KernelPlan[],
  built: readonly BuiltInitramfs[],
): Promise<ModuleListing[]> {
  const wanted = new Set(
    ctx.platforms.flatMap(({ needs, boot }) =>
      [
        ...needs.storageModules,
        ...(needs.storageExtras ?? []),
        ...needs.networkModules,
        ...boot.listedOnly.map((l) => l.module),
      ].map(fold),
    ),
  );
  const hasDefault = ctx.facts.kernels.some(
    (k) => k.isDefault && kernels.some((p) => p.version === k.version),
  );
  const listings: ModuleListing[] = [];
  for (const { version } of kernels) {
    const kernel = ctx.facts.kernels.find((k) => k.version === version);
    if (kernel === undefined) continue;
    const isDefault = kernel.isDefault || (!hasDefault && version === kernels[0]?.version);
    const text = await ctx.guest.readText(`/lib/modules/${version}/modules.dep`);
    const dependencies = readModulesDep(text ?? '');
    const early = new Set(built.find((b) => b.version === version)?.allModules ?? kernel.initramfsModules);
    const inside = new Set(kernel.modules);
    const builtin = new Set(kernel.builtin);
    for (const module of wanted) {
      const where = builtin.has(module)
        ? 'builtin'
        : early.has(module)
          ? 'initramfs'
          : inside.has(module)
            ? 'image'
            : 'missing';
      const place = where === 'initramfs' ? early : inside;
      const lackingDependencies =
        where === 'initramfs' || where === 'image'
          ? (dependencies.get(module) ?? []).filter((d) => !place.has(d) && !builtin.has(d))
          : [];
      listings.push({ kernel: version, isDefault, module, where, lackingDependencies });
    }
  }
  return listings;
}
