/** The configuration file of a VMware machine: `key = "value"` lines, read into the machine and its disks. */
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { type Bus, macOf, type PackedMachine, wholeNumber } from './machine.ts';

/** Largest file read; those of VMware take some KiB. */
export const MAX_VMX_BYTES = 1024 * 1024;

const BUS_ORDER = ['ide', 'scsi', 'sata', 'nvme'] as const;
const DISK_TYPES = ['', 'disk', 'scsi-harddisk', 'ata-harddisk'];

/** A disk of the machine. */
export interface VmxDisk {
  bus: Bus;
  controller: number;
  unit: number;
  /** As written; untrusted. */
  fileName: string;
}

/** True for text that is a VMX file: lines of its form, and one with its version. */
export function looksLikeVmx(head: string): boolean {
  return (
    !head.includes('\0') &&
    /^[ \t]*config\.version[ \t]*=[ \t]*"/im.test(head) &&
    /^\ufeff?(?:[ \t]*(?:#[^\n]*)?\r?\n){0,20}[ \t]*\.?[\w.:-]{1,100}[ \t]*=[ \t]*"/.test(head)
  );
}

/** Values by lower-case key. Throws DAMAGED for a key with two values. */
export function parseVmx(name: string, text: string): ReadonlyMap<string, string> {
  const values = new Map<string, string>();
  for (const raw of text.replace(/^\ufeff/, '').split('\n')) {
    const match = /^\s*([^\s=#]+)\s*=\s*"([^"]*)"\s*$/.exec(raw);
    if (match?.[1] === undefined || match[2] === undefined) continue; // comments, and what VMware skips too
    const key = match[1].toLowerCase();
    // VMware writes what does not fit between quotes as |HH
    const value = match[2].replace(/\|([0-9a-f]{2})/gi, (_, hex: string) =>
      String.fromCharCode(Number.parseInt(hex, 16)),
    );
    if (values.has(key) && values.get(key) !== value) {
      throw new PortError(
        'DAMAGED',
        `${name} is damaged: ${printable(key).slice(0, 100)} stands in it twice`,
        {
          hint: 'VMware does not accept that either; correct the file in a copy',
        },
      );
    }
    values.set(key, value);
  }
  return values;
}

const isTrue = (value: string | undefined) => value?.toLowerCase() === 'true';

/** Disks in the order of their addresses. Throws UNSUPPORTED_FORMAT for devices of the host. */
export function vmxDisks(
  name: string,
  vmx: ReadonlyMap<string, string>,
  warn: (text: string) => void,
): VmxDisk[] {
  const disks: VmxDisk[] = [];
  for (const [key, fileName] of vmx) {
    const match = /^(ide|scsi|sata|nvme)(\d{1,2}):(\d{1,3})\.filename$/.exec(key);
    if (match === null || fileName === '') continue;
    const device = key.slice(0, -'.filename'.length);
    const type = vmx.get(`${device}.devicetype`)?.toLowerCase() ?? '';
    if (!isTrue(vmx.get(`${device}.present`)) || /cdrom|floppy/.test(type)) continue;
    if (/raw|passthru|rdm/.test(type)) {
      throw new PortError('UNSUPPORTED_FORMAT', `${name} uses a device of its host as disk ${device}`, {
        hint: 'capture that device by itself, or clone the disk with vmkfstools -i',
      });
    }
    if (!DISK_TYPES.includes(type)) {
      warn(`device ${device} of type ${printable(type)} left out`);
      continue;
    }
    disks.push({ bus: match[1] as Bus, controller: Number(match[2]), unit: Number(match[3]), fileName });
  }
  const rank = (disk: VmxDisk) => BUS_ORDER.indexOf(disk.bus as (typeof BUS_ORDER)[number]);
  return disks.sort((a, b) => rank(a) - rank(b) || a.controller - b.controller || a.unit - b.unit);
}

/** The machine. */
export function vmxMachine(vmx: ReadonlyMap<string, string>): PackedMachine {
  const numbers = (pattern: RegExp) =>
    [...vmx].flatMap(([key, value]) => (isTrue(value) ? (pattern.exec(key)?.slice(1, 2) ?? []) : []));
  const memoryMiB = wholeNumber(vmx.get('memsize'));
  const memoryBytes = (memoryMiB ?? Number.NaN) * 1024 * 1024;
  return {
    name: vmx.get('displayname'),
    firmware: vmx.get('firmware')?.toLowerCase() === 'efi' ? 'uefi' : 'bios',
    guestOsId: vmx.get('guestos'),
    cpus: wholeNumber(vmx.get('numvcpus') ?? '1'),
    memoryBytes: Number.isSafeInteger(memoryBytes) ? memoryBytes : undefined,
    nics: numbers(/^ethernet(\d{1,2})\.present$/).map((n) => ({
      mac: macOf(vmx.get(`ethernet${n}.address`) ?? vmx.get(`ethernet${n}.generatedaddress`)),
      model: vmx.get(`ethernet${n}.virtualdev`),
      network: vmx.get(`ethernet${n}.networkname`),
    })),
    controllers: BUS_ORDER.flatMap((bus) =>
      numbers(new RegExp(`^${bus}(\\d{1,2})\\.present$`)).map((n) => ({
        bus,
        number: Number(n),
        model: vmx.get(`${bus}${n}.virtualdev`),
      })),
    ),
  };
}
