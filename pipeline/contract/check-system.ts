/** Claims about the system: what it is, how it starts, which drivers it starts with, how large it is. */
import type { Contract } from '../../core/contract.ts';
import type { Kernel } from '../../core/facts.ts';
import { formatBytes, GIB } from '../../core/sizes.ts';
import { type ContractCheck, check, type Evidence, named, unknownCritical } from './check.ts';

/** Bytes of the boot sector that hold code; the rest is the partition table. */
const BOOT_CODE_BYTES = 440;

/** The fields named `critical` are ones this program understands. */
export function checkCritical(contract: Contract): ContractCheck {
  const { critical } = contract;
  return check(
    'critical',
    unknownCritical(contract).map((field) => `this program does not understand ${field}`),
    critical.length === 0 ? 'nothing' : `${named(critical)}: understood`,
  );
}

/** Distribution, version, architecture. */
export function checkSystem({ contract, facts }: Evidence): ContractCheck[] {
  const { os, arch } = contract.facts;
  const differs = (what: string, claim: string, found: string): string[] =>
    claim === found ? [] : [`the contract says ${what} ${claim || '?'}, the disk holds ${found || '?'}`];
  return [
    check(
      'system',
      [
        ...differs('distribution', os.distro, facts.os.distro),
        ...differs('version', os.version, facts.os.version),
      ],
      `${facts.os.distro} ${facts.os.version}`,
    ),
    check('architecture', differs('architecture', arch, facts.os.arch), facts.os.arch),
  ];
}

/** The disk starts with the firmware that is claimed, on a machine whose firmware remembers nothing of it. */
export async function checkFirmware({ contract, facts, guest }: Evidence): Promise<ContractCheck> {
  const claimed = contract.facts.firmware;
  const faults: string[] = [];
  if (claimed.length === 0) faults.push('the contract names no firmware');
  if (!claimed.includes(facts.firmware)) faults.push(`the disk is laid out for ${facts.firmware}`);
  if (facts.bootloader.kind === 'none') faults.push('there is no boot loader');
  if (claimed.includes('uefi')) {
    if (facts.bootloader.espMount === undefined) faults.push('uefi: no EFI system partition is mounted');
    else if (!facts.bootloader.fallbackLoader)
      faults.push(`uefi: ${facts.bootloader.espMount} has no EFI/BOOT/BOOT*.EFI`);
  }
  if (claimed.includes('bios')) {
    const sector = await guest.call('pread-device', ['/dev/sda', String(BOOT_CODE_BYTES), '0']);
    // guestfish may end its answer with a newline
    if (!/[^\0\n]/.test(sector)) faults.push('bios: the boot sector holds no code');
  }
  return check('firmware', faults, claimed.join(' and '));
}

const fold = (module: string): string => module.replaceAll('-', '_');

/** Every kernel of the boot menu holds the drivers: each fault names the kernel and what it lacks. */
export function checkDrivers({ contract, facts }: Evidence): ContractCheck {
  const kernels = facts.kernels.filter((k) => k.inBootMenu);
  const faults = kernels.length === 0 ? ['no kernel of the boot menu was found'] : [];
  const lacking = (claims: readonly string[], has: (k: Kernel) => string[], where: string) => {
    for (const kernel of kernels) {
      const there = new Set(has(kernel));
      const missing = claims.filter((m) => !there.has(fold(m)));
      if (missing.length > 0) faults.push(`kernel ${kernel.version} has no ${named(missing)} ${where}`);
    }
  };
  lacking(
    contract.facts.drivers,
    (k) => [...k.initramfsModules, ...k.builtin],
    'in its initramfs or built in',
  );
  lacking(
    contract.facts.networkDrivers ?? [],
    (k) => [...k.modules, ...k.builtin, ...k.initramfsModules],
    'at all',
  );
  const versions = kernels.map((k) => k.version).join(', ');
  return check('drivers', faults, `${contract.facts.drivers.length} modules, each in kernel ${versions}`);
}

/** The disk fits into what the contract asks for. */
export function checkDisk({ contract, facts }: Evidence): ContractCheck {
  const bytes = facts.disks.reduce((sum, d) => sum + d.virtualBytes, 0);
  const { minDiskGiB } = contract.needs;
  const small = minDiskGiB * GIB < bytes;
  return check(
    'disk',
    small ? [`the contract asks for ${minDiskGiB} GiB, the disk has ${formatBytes(bytes)}`] : [],
    `${formatBytes(bytes)} fit into ${minDiskGiB} GiB`,
  );
}
