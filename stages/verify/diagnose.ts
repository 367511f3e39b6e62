/** What a boot that never reported was last seen doing, from its console. */
/** A sign on the console. `final` means no report can follow. */
interface Sign {
  pattern: RegExp;
  seen: string;
  final: boolean;
}

/** In the order of a boot; the last that matches says how far it came. */
const SIGNS: readonly Sign[] = [
  { pattern: /No bootable device/i, seen: 'no boot device: the firmware found no boot loader', final: true },
  {
    pattern: /No bootable option or device was found|UEFI Interactive Shell/i,
    seen: 'no boot device: the firmware found no UEFI boot loader',
    final: true,
  },
  {
    pattern: /BdsDxe: failed to (load|start)/,
    seen: 'the firmware could not load a UEFI boot loader',
    final: false,
  },
  { pattern: /grub rescue>/, seen: 'the boot loader stopped: grub rescue prompt', final: true },
  { pattern: /^grub>/m, seen: 'the boot loader stopped at its prompt: no menu was found', final: true },
  { pattern: /Linux version \d/, seen: 'the kernel started', final: false },
  {
    pattern: /Kernel panic[^\n]*Unable to mount root/i,
    seen: 'kernel panic: unable to mount root',
    final: true,
  },
  { pattern: /Kernel panic(?![^\n]*Unable to mount root)/i, seen: 'kernel panic', final: true },
  {
    pattern: /ALERT!.{0,200}does not exist|Gave up waiting for (root|suspend)/i,
    seen: 'initramfs: the root disk did not appear',
    final: false,
  },
  { pattern: /\(initramfs\)/, seen: 'initramfs prompt: the root file system was not mounted', final: true },
  {
    pattern: /dracut:\/#|Entering emergency mode.*dracut|Generating "\/run\/initramfs\/rdsosreport/is,
    seen: 'dracut prompt: the root file system was not mounted',
    final: true,
  },
  { pattern: /systemd\[1\]: .*running in system mode/, seen: 'systemd started', final: false },
  {
    pattern: /You are in (emergency|rescue) mode|Give root password|root account is locked/i,
    seen: 'emergency mode: a file system or an early unit failed',
    final: true,
  },
  { pattern: /login: ?$/m, seen: 'a login prompt, but no report', final: false },
];

/** What was seen last, and whether nothing can follow. */
export interface Diagnosis {
  seen: string;
  final: boolean;
  /** True once a login prompt was there: the boot came to its end. */
  login: boolean;
}

/** Reads the console so far. A guest that writes nothing stays with `nothing on the serial console`. */
export function diagnose(consoleText: string): Diagnosis {
  // Terminal sequences stand between the words otherwise.
  const text = consoleText.replace(/\u001b\[[0-9;?]*[A-Za-z]/g, '').replaceAll('\r', '');
  let found: Diagnosis = {
    seen: text.trim() === '' ? 'nothing on the serial console' : 'no known sign on the serial console',
    final: false,
    login: false,
  };
  let cause = '';
  for (const { pattern, seen, final } of SIGNS) {
    if (!pattern.test(text)) continue;
    if (/panic|ALERT/i.test(pattern.source)) cause ||= seen;
    found = { seen, final, login: /login prompt/.test(seen) };
  }
  // The alert says why the prompt appeared.
  if (found.seen.startsWith('initramfs prompt') && cause.startsWith('initramfs:')) {
    found = { seen: `${found.seen} (${cause.slice('initramfs: '.length)})`, final: true, login: false };
  }
  return found;
}
