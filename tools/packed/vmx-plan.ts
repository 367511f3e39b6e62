/** VMware machines as they lie in their folder, and single disks in several files. */
import * as path from 'node:path';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import type { OpenedSource } from '../image-format/open.ts';
import { damaged, readExact, unsafe } from '../image-format/reader.ts';
import type { PlanParts } from './plan.ts';
import { openBeside } from './sibling.ts';
import type { DiskOrigin, PackedDisk } from './types.ts';
import { looksLikeDescriptor, planExtents } from './vmdk-plan.ts';
import { MAX_VMX_BYTES, parseVmx, type VmxDisk, vmxDisks, vmxMachine } from './vmx.ts';

/** Fields of every disk that is not compressed and has no digest. */
function diskOf(index: number, name: string, origin: DiskOrigin, place?: VmxDisk): PackedDisk {
  const assembled = origin.kind === 'extents';
  return {
    id: `disk${index}`,
    name,
    origin,
    compression: undefined,
    declaredBytes: origin.sizeBytes,
    capacityBytes: assembled ? origin.sizeBytes : undefined,
    format: assembled ? 'raw' : 'vmdk',
    bus: place?.bus ?? 'unknown',
    controller: place?.controller ?? 0,
    unit: place?.unit ?? 0,
    bootHint: index === 0,
    digests: [],
  };
}

async function originOf(source: OpenedSource, fileName: string): Promise<DiskOrigin> {
  const disk = await openBeside(path.dirname(source.path), fileName, source.name);
  if (disk === undefined) throw damaged(source, `the file of a disk is missing: ${printable(fileName)}`);
  try {
    if (looksLikeDescriptor(await disk.read(0, 512))) return await planExtents(disk);
    return { kind: 'file', path: disk.path, sizeBytes: disk.sizeBytes, modifiedMs: disk.modifiedMs };
  } finally {
    await disk.close();
  }
}

/** Reads a VMX file and the descriptors of its disks. */
export async function planVmx(source: OpenedSource, warn: (text: string) => void): Promise<PlanParts> {
  if (source.sizeBytes > MAX_VMX_BYTES) throw unsafe(source, 'it is longer than 1 MiB');
  const text = (await readExact(source, 0, source.sizeBytes, 'its text')).toString('utf8');
  const vmx = parseVmx(source.name, text);
  if (vmx.has('encryption.keysafe') || vmx.has('encryption.data')) {
    throw new PortError('ENCRYPTED', `${source.name} is encrypted`, {
      hint: 'decrypt the machine with VMware first',
    });
  }
  const places = vmxDisks(source.name, vmx, warn);
  if (places.length === 0) {
    throw new PortError('NOT_A_DISK', `${source.name} describes a machine without disks`, {
      hint: 'give its disk',
    });
  }
  if (new Set(places.map((p) => p.fileName)).size !== places.length) {
    throw damaged(source, 'two of its disks are the same file');
  }
  const disks: PackedDisk[] = [];
  for (const [index, place] of places.entries()) {
    disks.push(diskOf(index, place.fileName, await originOf(source, place.fileName), place));
  }
  return { machine: vmxMachine(vmx), disks };
}

/** Reads the descriptor of a single disk. */
export async function planVmdkDescriptor(source: OpenedSource): Promise<PlanParts> {
  const origin = await planExtents(source);
  return { machine: undefined, disks: [diskOf(0, path.basename(source.path), origin)] };
}
