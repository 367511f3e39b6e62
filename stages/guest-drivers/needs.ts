/** What the chosen platforms need together, and what each kernel lacks of it. */
import { PortError } from '../../core/errors.ts';
import type { Facts, Kernel } from '../../core/facts.ts';
import type { AgentRole, Platform } from '../../core/platform.ts';
import { hasSerialConsole } from '../../tools/kernel-arguments.ts';
import { platformArguments, type Situation } from './arguments.ts';

/** The union over platforms; module names with `_`. */
export interface UnitedNeeds {
  storageModules: string[];
  /** Put into the initramfs of every kernel that has them. */
  storageExtras: string[];
  networkModules: string[];
  optionalModules: string[];
  kernelArguments: string[];
  /** What the platforms disagree about, and what this guest does not get. */
  notes: string[];
  agents: AgentRole[];
  /** Kernel messages should be seen on a serial line. */
  serialConsole: boolean;
  /** Titles of the platforms that ask for a storage or network module, by module. */
  askedBy: ReadonlyMap<string, readonly string[]>;
}

const fold = (names: readonly string[]) => names.map((n) => n.replaceAll('-', '_'));
const unite = <T>(lists: readonly (readonly T[])[]): T[] => [...new Set(lists.flat())];

/** Unites the needs of platforms, fitted to a guest. */
export function uniteNeeds(
  platforms: readonly Platform[],
  situation: Situation = { kernels: [], keepsNetwork: false },
): UnitedNeeds {
  const needs = platforms.map((p) => p.needs);
  const { words: kernelArguments, notes } = platformArguments(platforms, situation);
  return {
    storageModules: unite(needs.map((n) => fold(n.storageModules))),
    storageExtras: unite(needs.map((n) => fold(n.storageExtras ?? []))),
    networkModules: unite(needs.map((n) => fold(n.networkModules))),
    optionalModules: unite(needs.map((n) => fold(n.optionalModules))),
    kernelArguments,
    notes,
    agents: unite(needs.map((n) => n.agents)),
    serialConsole: hasSerialConsole(kernelArguments),
    askedBy: askers(platforms),
  };
}

function askers(platforms: readonly Platform[]): Map<string, string[]> {
  const by = new Map<string, string[]>();
  for (const { title, needs } of platforms) {
    for (const name of fold([...needs.storageModules, ...needs.networkModules])) {
      by.set(name, [...(by.get(name) ?? []), title]);
    }
  }
  return by;
}

/** `nvme (Amazon EC2)`, so that the user sees which platform to leave out. */
function named(modules: readonly string[], { askedBy }: UnitedNeeds): string {
  return modules.map((m) => `${m} (${askedBy.get(m)?.join(', ') ?? ''})`).join(', ');
}

/** What one kernel means for the conversion. */
export interface KernelPlan {
  version: string;
  /** Needed storage modules its initramfs must hold (those not built in). */
  required: string[];
  /** Those for less usual disks of a platform: wanted in the initramfs, never a reason to refuse. */
  extras: string[];
  /** Of both, what the listed initramfs lacks now; empty means no rebuild. */
  lacking: string[];
}

/** The kernels a machine would boot: those of the boot menu, or all when the menu could not be read. */
export function menuKernels(facts: Facts): Kernel[] {
  const menu = facts.kernels.filter((k) => k.inBootMenu);
  return menu.length > 0 ? menu : facts.kernels;
}

/**
 * Plans each kernel of the boot menu. Modules the kernel does not have at all are a warning, but for the default
 * kernel they are the end: the image would not find its root disk. Throws GUEST_BROKEN.
 */
export function planKernels(facts: Facts, needs: UnitedNeeds, warn: (text: string) => void): KernelPlan[] {
  const kernels = menuKernels(facts);
  if (kernels.length === 0) throw new PortError('GUEST_BROKEN', 'the guest has no kernel in its boot menu');
  const fallback = kernels.some((k) => k.isDefault) ? undefined : kernels[0]?.version;
  return kernels.map((kernel) => {
    const isDefault = kernel.isDefault || kernel.version === fallback;
    const has = (m: string) => kernel.builtin.includes(m) || kernel.modules.includes(m);
    const absent = needs.storageModules.filter((m) => !has(m));
    if (absent.length > 0) {
      const text = `kernel ${kernel.version} has no ${named(absent, needs)}`;
      if (isDefault) {
        throw new PortError('GUEST_BROKEN', `${text}, needed to find the disk there`, {
          hint: 'install a kernel that has it (such as linux-image-amd64), or choose other platforms',
        });
      }
      warn(`${text}: this entry of the boot menu will not start on every target`);
    }
    const noNetwork = needs.networkModules.filter((m) => !has(m));
    if (noNetwork.length > 0) {
      const text = `kernel ${kernel.version} has no network driver ${named(noNetwork, needs)}`;
      if (isDefault && noNetwork.length === needs.networkModules.length) {
        throw new PortError('GUEST_BROKEN', `${text}: no target platform's network would work`);
      }
      warn(text);
    }
    const loadable = (m: string) => kernel.modules.includes(m) && !kernel.builtin.includes(m);
    const early = (m: string) => kernel.initramfsModules.includes(m);
    const required = needs.storageModules.filter(loadable);
    const extras = needs.storageExtras.filter((m) => loadable(m) && !required.includes(m));
    const lacking = [...required, ...extras].filter((m) => !early(m));
    if (lacking.length > 0 && kernel.initramfs === undefined) {
      const text = `kernel ${kernel.version} boots without an initramfs and has ${lacking.join(', ')} only as modules`;
      if (isDefault && required.some((m) => !early(m))) throw new PortError('GUEST_BROKEN', text);
      warn(text);
      return { version: kernel.version, required: [], extras: [], lacking: [] };
    }
    return { version: kernel.version, required, extras, lacking };
  });
}
