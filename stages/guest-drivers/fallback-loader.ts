/**
 * UEFI: the entry in the old machine's firmware memory is gone, so the firmware of the new one only finds
 * `EFI/BOOT/BOOT<arch>.EFI`. The shim and what it loads are copied there. `fbx64.efi` is not: with it the shim would write
 * firmware entries and restart instead of booting.
 */
import { PortError } from '../../core/errors.ts';
import type { Facts } from '../../core/facts.ts';
import type { GuestFiles } from '../../core/guest.ts';
import type { StageContext } from '../../core/stage.ts';

/** One copy on the EFI system partition, absolute guest paths. */
export interface LoaderCopy {
  from: string;
  to: string;
}

const ARCHES: Readonly<Record<string, string>> = {
  x86_64: 'x64',
  aarch64: 'aa64',
  i386: 'ia32',
  riscv64: 'riscv64',
};

/** Name of a member of a folder whatever its case, or undefined. */
function member(names: readonly string[], wanted: string): string | undefined {
  return names.find((n) => n.toLowerCase() === wanted.toLowerCase());
}

/** Plans the copies; nothing when the guest starts by BIOS or has a working fallback. Throws GUEST_BROKEN. */
export async function planFallbackLoader(guest: GuestFiles, facts: Facts): Promise<LoaderCopy[]> {
  if (facts.firmware !== 'uefi') return [];
  const arch = ARCHES[facts.os.arch] ?? 'x64';
  const espMount = facts.bootloader.espMount ?? '/boot/efi';
  const efi = `${espMount}/${member(await guest.list(espMount), 'EFI') ?? 'EFI'}`;
  const folders = await guest.list(efi);
  const bootDir = `${efi}/${member(folders, 'BOOT') ?? 'BOOT'}`;
  const present = await guest.list(bootDir);
  // SUSE's shim has no architecture in its name and loads `grub.efi`.
  const [shims, grubs] = [
    [`shim${arch}.efi`, 'shim.efi'],
    [`grub${arch}.efi`, 'grub.efi'],
  ];
  const vendors = folders.filter((f) => f.toLowerCase() !== 'boot' && f.toLowerCase() !== 'microsoft');
  vendors.sort(
    (a, b) => Number(b.toLowerCase() === facts.os.distro) - Number(a.toLowerCase() === facts.os.distro),
  );
  const hasFallback = member(present, `boot${arch}.efi`) !== undefined;
  for (const vendor of vendors) {
    const dir = `${efi}/${vendor}`;
    const names = await guest.list(dir);
    const shimName = shims.map((n) => member(names, n)).find((n) => n !== undefined);
    const grubName = (shimName === 'shim.efi' ? grubs.toReversed() : grubs)
      .map((n) => member(names, n))
      .find((n) => n !== undefined);
    const main = shimName ?? grubName;
    if (main === undefined || grubName === undefined) continue;
    const copies: LoaderCopy[] = [];
    if (!hasFallback) copies.push({ from: `${dir}/${main}`, to: `${bootDir}/BOOT${arch.toUpperCase()}.EFI` });
    else if (!(await isSame(guest, `${dir}/${main}`, `${bootDir}/${member(present, `boot${arch}.efi`)}`))) {
      // Somebody else's loader, or a self-contained one: it is used today, leave it alone.
      return [];
    }
    const beside = [
      ...(shimName === undefined
        ? []
        : [grubName, member(names, `mm${arch}.efi`), member(names, 'MokManager.efi')]),
      member(names, 'grub.cfg'),
    ];
    for (const name of beside) {
      if (name !== undefined && member(present, name) === undefined) {
        copies.push({ from: `${dir}/${name}`, to: `${bootDir}/${name}` });
      }
    }
    return copies;
  }
  if (hasFallback) return [];
  throw new PortError('GUEST_BROKEN', `no UEFI boot loader found below ${efi}`, {
    hint: 'install grub-efi and shim-signed in the guest before the conversion',
  });
}

async function isSame(guest: GuestFiles, a: string, b: string): Promise<boolean> {
  const [left, right] = [await guest.read(a), await guest.read(b)];
  return left !== undefined && right !== undefined && left.equals(right);
}

/** Copies and records. Throws GUEST_BROKEN. */
export async function copyFallbackLoader(ctx: StageContext, copies: readonly LoaderCopy[]): Promise<void> {
  for (const { from, to } of copies) {
    const content = await ctx.guest.read(from);
    if (content === undefined) throw new PortError('GUEST_BROKEN', `${from} cannot be read`);
    const folder = to.slice(0, to.lastIndexOf('/'));
    if ((await ctx.guest.kind(folder)) === 'missing') await ctx.guest.mkdir(folder);
    await ctx.guest.write(to, content);
    if (!(await isSame(ctx.guest, from, to)))
      throw new PortError('GUEST_BROKEN', `${to} could not be written`);
  }
}

/** Records the copies as changes. */
export function recordCopies(ctx: StageContext, copies: readonly LoaderCopy[]): void {
  for (const { from, to } of copies) {
    ctx.change({
      path: to,
      action: 'create',
      why: `firmware without saved entries starts from here (copy of ${from})`,
    });
  }
}
