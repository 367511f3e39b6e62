/** Kernel arguments of the chosen platforms, fitted to this guest. */
import type { Kernel } from '../../core/facts.ts';
import type { Platform } from '../../core/platform.ts';
import { argumentConflicts, uniteArguments } from '../../tools/kernel-arguments.ts';

/** What of the guest and the request decides about arguments. */
export interface Situation {
  /** Kernels of the boot menu. */
  kernels: readonly Kernel[];
  /** The server keeps its network configuration, which names its cards. */
  keepsNetwork: boolean;
}

/** The arguments, and what the user should know about them. */
export interface PlatformArguments {
  words: string[];
  notes: string[];
}

/** docs.aws.amazon.com/ebs, "NVMe I/O operation timeout": before 4.6 the parameter belongs to nvme and is one byte. */
const NVME_CORE = { since: [4, 6], largest: 255 } as const;

function isOlder(version: string, [major, minor]: readonly [number, number]): boolean {
  const match = /^(\d+)\.(\d+)/.exec(version);
  if (match === null) return false;
  const found = [Number(match[1]), Number(match[2])] as const;
  return found[0] < major || (found[0] === major && found[1] < minor);
}

function forOldKernels(words: readonly string[], kernels: readonly Kernel[]): string[] {
  const timeout = words.find((w) => w.startsWith('nvme_core.io_timeout='));
  if (timeout === undefined || !kernels.some((k) => isOlder(k.version, NVME_CORE.since))) return [];
  const seconds = Math.min(Number(timeout.slice(timeout.indexOf('=') + 1)), NVME_CORE.largest);
  return [`nvme.io_timeout=${seconds}`];
}

/** Unites and fits them. */
export function platformArguments(
  platforms: readonly Platform[],
  { kernels, keepsNetwork }: Situation,
): PlatformArguments {
  const lists = platforms.map((p) => p.needs.kernelArguments);
  const notes = argumentConflicts(lists);
  const united = uniteArguments(lists);
  let words = [...forOldKernels(united, kernels), ...united];
  if (keepsNetwork && words.includes('net.ifnames=0')) {
    words = words.filter((w) => w !== 'net.ifnames=0');
    notes.push('the network configuration stays, so net.ifnames=0 is not added: it would rename the cards');
  }
  return { words, notes };
}
