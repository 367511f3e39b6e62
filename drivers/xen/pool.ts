/** What is in the pool: storage, networks, machines of ours. */
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import type { XapiSession } from '../../tools/xapi/session.ts';

/** Keys in `other_config`. A clone inherits them: name and keys must both be ours before anything is removed. */
export const KEYS = {
  mark: 'port-image.mark',
  state: 'port-image.state',
  file: 'port-image.file',
  content: 'port-image.content',
} as const;

/** Integers are JSON numbers, or text in older hosts. */
const Int = z.union([z.number(), z.string().regex(/^\d+$/).transform(Number)]);

const Sr = z.object({
  uuid: z.string(),
  name_label: z.string(),
  content_type: z.string(),
  physical_size: Int,
  physical_utilisation: Int,
});

const Vm = z.object({
  uuid: z.string(),
  name_label: z.string(),
  is_a_template: z.boolean(),
  power_state: z.string(),
  other_config: z.record(z.string(), z.string()),
  VBDs: z.array(z.string()),
});

const Vdi = z.object({
  name_label: z.string(),
  other_config: z.record(z.string(), z.string()),
  VBDs: z.array(z.string()),
});

/** A machine or template with its reference. */
export interface XenVm extends z.infer<typeof Vm> {
  id: string;
}

/** A reference. */
export const Reference = z.string().regex(/^OpaqueRef:/);

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Reference of the one object of a class that is named. Throws CONFIG. */
export async function oneNamed(
  session: XapiSession,
  type: 'SR' | 'network' | 'VM',
  named: string,
  option: string,
): Promise<string> {
  if (UUID.test(named)) return session.call(Reference, `${type}.get_by_uuid`, named);
  const found = await session.call(z.array(Reference), `${type}.get_by_name_label`, named);
  const [first] = found;
  if (first !== undefined && found.length === 1) return first;
  throw new PortError('CONFIG', `xen.${option}: ${found.length} have the name ${printable(named)}`, {
    hint: found.length === 0 ? 'is it spelled as the host shows it?' : 'name it by its UUID',
  });
}

/** The storage and its free bytes. Throws CONFIG. */
export async function storage(session: XapiSession, named: string) {
  const id = await oneNamed(session, 'SR', named, 'sr');
  const record = await session.call(Sr, 'SR.get_record', id);
  return { id, ...record, freeBytes: record.physical_size - record.physical_utilisation };
}

/** Machines and templates of this name. */
export async function vmsNamed(session: XapiSession, name: string): Promise<XenVm[]> {
  const ids = await session.call(z.array(Reference), 'VM.get_by_name_label', name);
  return Promise.all(ids.map(async (id) => ({ id, ...(await session.call(Vm, 'VM.get_record', id)) })));
}

/** Disks of a machine that carry a mark of ours. */
async function ownDisks(session: XapiSession, vm: XenVm): Promise<string[]> {
  const Vbd = z.object({ VDI: z.string(), type: z.string() });
  const found: string[] = [];
  for (const id of vm.VBDs) {
    const vbd = await session.call(Vbd, 'VBD.get_record', id);
    if (vbd.type !== 'Disk' || vbd.VDI === 'OpaqueRef:NULL') continue;
    const vdi = await session.call(Vdi, 'VDI.get_record', vbd.VDI);
    if (vdi.other_config[KEYS.mark] === vm.other_config[KEYS.mark]) found.push(vbd.VDI);
  }
  return found;
}

/** Removes a machine of ours with its disks of ours. */
export async function removeVm(session: XapiSession, vm: XenVm): Promise<void> {
  const disks = await ownDisks(session, vm);
  await session.call(z.unknown(), 'VM.destroy', vm.id);
  for (const disk of disks) await session.call(z.unknown(), 'VDI.destroy', disk);
}

/** Removes what an earlier run of the job left under its temporary name: machines first, they hold disks. */
export async function removeLeftovers(session: XapiSession, name: string, mark: string): Promise<void> {
  for (const vm of await vmsNamed(session, name)) {
    if (vm.other_config[KEYS.mark] === mark) await removeVm(session, vm);
  }
  for (const id of await session.call(z.array(Reference), 'VDI.get_by_name_label', name)) {
    const vdi = await session.call(Vdi, 'VDI.get_record', id);
    if (vdi.other_config[KEYS.mark] !== mark || vdi.VBDs.length > 0) continue;
    await session.call(z.unknown(), 'VDI.destroy', id);
  }
}
