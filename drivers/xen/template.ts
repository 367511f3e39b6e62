/** A template that starts from a disk: a clone of one of the host's own, made an HVM guest with the firmware of the image. */
import * as z from 'zod';
import { GIB } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import type { UploadContext } from '../../core/uploader.ts';
import { fileId } from '../../core/work-disks.ts';
import type { XapiSession } from '../../tools/xapi/session.ts';
import type { XenOptions } from './options.ts';
import { KEYS, oneNamed, Reference } from './pool.ts';

const MEMORY_BYTES = 2 * GIB;
const PROCESSORS = 2;

/** A disk in the pool. */
export interface XenDisk {
  /** Its reference. */
  vdi: string;
  /** Id of the disk it shows; undefined for the one the firmware starts from, which comes first. */
  id: string | undefined;
}

/** Makes it under a temporary name and marks it complete last; returns its reference. Throws as xapiError. */
export async function makeTemplate(
  ctx: UploadContext<XenOptions>,
  session: XapiSession,
  name: string,
  disks: readonly XenDisk[],
  marks: Record<string, string>,
): Promise<string> {
  const { options, facts, identity } = ctx;
  const call = (method: string, ...args: unknown[]) => session.call(z.unknown(), method, ...args);
  const base = await oneNamed(session, 'VM', options.baseTemplate, 'baseTemplate');
  // A clone of a template is a template; nothing starts before it is whole.
  const vm = await session.call(Reference, 'VM.clone', base, name);
  const ours: Record<string, string> = { ...marks };
  for (const key of ['id', 'version', 'source'] as const) {
    const value = identity[key];
    if (value !== undefined) ours[`port-image.${key}`] = printable(value);
  }
  // Replaces what the base says: it would ask for an installation medium, and is a default template of the host.
  await call('VM.set_other_config', vm, ours);
  await call('VM.set_name_description', vm, `image ${ctx.name}, made by port-image`);
  await call('VM.set_domain_type', vm, 'hvm');
  await call('VM.set_HVM_boot_policy', vm, 'BIOS order');
  await call('VM.set_HVM_boot_params', vm, {
    order: 'c',
    firmware: facts.firmware === 'uefi' ? 'uefi' : 'bios',
  });
  await call('VM.set_memory_limits', vm, MEMORY_BYTES, MEMORY_BYTES, MEMORY_BYTES, MEMORY_BYTES);
  await call('VM.set_VCPUs_max', vm, PROCESSORS);
  await call('VM.set_VCPUs_at_startup', vm, PROCESSORS);
  for (const [n, { vdi }] of disks.entries()) {
    await call('VBD.create', {
      VM: vm,
      VDI: vdi,
      userdevice: String(n),
      bootable: n === 0,
      mode: 'RW',
      type: 'Disk',
      unpluggable: false,
      empty: false,
      other_config: {},
      qos_algorithm_type: '',
      qos_algorithm_params: {},
    });
  }
  if (options.network !== undefined) {
    await call('VIF.create', {
      VM: vm,
      network: await oneNamed(session, 'network', options.network, 'network'),
      device: '0',
      MAC: '',
      MTU: 1500,
      other_config: {},
      qos_algorithm_type: '',
      qos_algorithm_params: {},
    });
  }
  for (const { vdi, id } of disks) {
    await call('VDI.set_name_label', vdi, `${ctx.name} ${id === undefined ? 'disk' : fileId(id)}`);
  }
  await call('VM.set_other_config', vm, { ...ours, [KEYS.state]: 'complete' });
  return vm;
}
