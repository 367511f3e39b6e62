/** The imported machine as vSphere shows it: what the OVF asked for must be there. */
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { imageDisks } from '../../core/work-disks.ts';
import { Devices, parseAnswer } from '../../tools/govc/json.ts';
import { ask, type Context, type Machine, machinesIn } from './inventory.ts';

/** Device types of the vSphere API. */
const WANTED: readonly [type: string, what: string][] = [
  ['ParaVirtualSCSIController', 'paravirtual SCSI controller'],
  ['VirtualDisk', 'disk'],
  ['VirtualVmxnet3', 'vmxnet3 card'],
];

/**
 * Compares devices, disk size and firmware with what was asked for; a firmware that was not taken over is set. Throws
 * CLOUD_MISMATCH.
 */
export async function checkMachine(ctx: Context, folder: string, machine: Machine): Promise<void> {
  const { devices } = parseAnswer(
    Devices,
    'device.info',
    await ask(ctx, 'device.info', ['-json', '-vm', machine.id]),
  );
  const mismatch = (why: string) =>
    new PortError('CLOUD_MISMATCH', `the machine vSphere made of the OVA ${why}`, {
      hint: `look at it: govc device.info -vm ${machine.name}`,
    });
  for (const [type, what] of WANTED) {
    if (!devices.some((d) => d.type === type)) throw mismatch(`has no ${what}`);
  }
  const sizes = devices.flatMap((d) =>
    d.type === 'VirtualDisk' ? [d.capacityInBytes ?? (d.capacityInKB ?? 0) * 1024] : [],
  );
  const wanted = imageDisks(ctx.facts).length;
  if (sizes.length !== wanted) throw mismatch(`has ${sizes.length} disks, not ${wanted}`);
  // A controller that cannot show the exact size rounds it up.
  if (!sizes.some((bytes) => bytes >= ctx.virtualBytes)) {
    throw mismatch(`has disks of ${sizes.join(', ')} bytes, the image has ${ctx.virtualBytes}`);
  }
  const firmware = ctx.facts.firmware === 'uefi' ? 'efi' : 'bios';
  if (machine.firmware === firmware) return;
  await ask(ctx, 'device.boot', ['-vm', machine.id, '-firmware', firmware]);
  const now = (await machinesIn(ctx, folder)).find((m) => m.id === machine.id)?.firmware ?? '';
  if (now !== firmware) throw mismatch(`starts by ${printable(now)}, not by ${firmware}`);
}
