/** OVF descriptors (DSP0243, versions 1 and 2) as VMware, VirtualBox, oVirt and others write them. */
import { PortError } from '../../core/errors.ts';
import type { SourceFormat } from '../../core/request.ts';
import { printable } from '../../core/text.ts';
import { type PackedMachine, wholeNumber } from './machine.ts';
import { requirePlainName } from './names.ts';
import { hardwareOf, type OvfPlace } from './ovf-hardware.ts';
import { unitBytes } from './ovf-units.ts';
import { parseXml, type XmlElement } from './xml.ts';

/** A disk of an OVF package. */
export interface OvfDisk extends OvfPlace {
  /** ID in the descriptor; untrusted text. */
  id: string;
  /** Name of its file beside the descriptor: a plain name, and untrusted text. */
  href: string;
  /** Bytes of that file as the descriptor says. */
  fileBytes: number | undefined;
  /** Bytes of the disk as the descriptor says. */
  capacityBytes: number | undefined;
  /** Format of the file, when the descriptor names a known one. */
  format: SourceFormat | undefined;
  /** The file is compressed as a whole. */
  compression: 'gzip' | undefined;
}

/** What a descriptor says. */
export interface OvfFacts {
  /** In the order of their addresses. */
  disks: OvfDisk[];
  machine: PackedMachine;
}

interface OvfFile {
  href: string;
  sizeBytes: number | undefined;
  compression: 'gzip' | undefined;
}

function unsupported(name: string, what: string, hint: string): PortError {
  return new PortError('UNSUPPORTED_FORMAT', `${name} ${what}`, { hint });
}

function damagedOvf(name: string, why: string): PortError {
  return new PortError('DAMAGED', `${name} is damaged: ${why}`, { hint: 'export the machine again' });
}

function filesOf(name: string, envelope: XmlElement): Map<string, OvfFile> {
  const files = new Map<string, OvfFile>();
  for (const file of envelope.first('References')?.all('File') ?? []) {
    const id = file.attribute('id') ?? '';
    const href = file.attribute('href') ?? '';
    requirePlainName(name, href);
    if (id === '' || files.has(id))
      throw damagedOvf(name, `it lists the file ${printable(id)} twice or without id`);
    if (file.attribute('chunkSize') !== undefined) {
      throw unsupported(name, `cuts its file ${printable(href)} into chunks`, 'export it again in one piece');
    }
    const compression = file.attribute('compression') ?? 'identity';
    if (compression !== 'identity' && compression !== '' && compression !== 'gzip') {
      throw unsupported(
        name,
        `has a file compressed with ${printable(compression)}`,
        'export it without compression',
      );
    }
    files.set(id, {
      href,
      sizeBytes: wholeNumber(file.attribute('size')),
      compression: compression === 'gzip' ? 'gzip' : undefined,
    });
  }
  return files;
}

/** Formats are named by the URL of their specification; only the words in it count. */
function formatOf(url: string): SourceFormat | undefined {
  const known: [RegExp, SourceFormat][] = [
    [/vmdk/i, 'vmdk'],
    [/vhdx/i, 'vhdx'],
    [/vhd|virtualhd|virtual-hard-disk/i, 'vpc'],
    [/qcow/i, 'qcow2'],
    [/\bvdi\b/i, 'vdi'],
  ];
  return known.find(([pattern]) => pattern.test(url))?.[1];
}

function capacityOf(disk: XmlElement, warn: (text: string) => void): number | undefined {
  const capacity = wholeNumber(disk.attribute('capacity'));
  const unit = unitBytes(disk.attribute('capacityAllocationUnits') ?? 'byte');
  const bytes = (capacity ?? Number.NaN) * (unit ?? Number.NaN);
  if (Number.isSafeInteger(bytes)) return bytes;
  warn(`the descriptor gives no readable capacity for disk ${printable(disk.attribute('diskId') ?? '?')}`);
  return undefined;
}

/**
 * Reads a descriptor; `name` is printable. Throws DAMAGED, UNSAFE_IMAGE, UNSAFE_PATH, OUTSIDE_REFERENCE, and UNSUPPORTED_FORMAT
 * for several machines, delta disks and chunked files.
 */
export function parseOvf(name: string, data: Buffer, warn: (text: string) => void): OvfFacts {
  const envelope = parseXml(name, data).first('Envelope');
  if (envelope === undefined) throw damagedOvf(name, 'its descriptor has no Envelope');
  if (envelope.first('VirtualSystemCollection') !== undefined || envelope.all('VirtualSystem').length > 1) {
    throw unsupported(name, 'holds several machines', 'export each machine by itself');
  }
  const system = envelope.first('VirtualSystem') ?? envelope.first('Content'); // Content: OVF 0.9 and oVirt
  if (system === undefined) throw damagedOvf(name, 'its descriptor describes no machine');
  const files = filesOf(name, envelope);
  const section =
    envelope.first('DiskSection') ?? envelope.all('Section').find((s) => s.first('Disk') !== undefined);
  const { machine, places } = hardwareOf(envelope, system);
  const disks: OvfDisk[] = [];
  for (const disk of section?.all('Disk') ?? []) {
    const id = disk.attribute('diskId') ?? '';
    if (id === '' || disks.some((d) => d.id === id)) {
      throw damagedOvf(name, `it has the disk ${printable(id)} twice, or without id`);
    }
    if ((disk.attribute('parentRef') ?? '') !== '') {
      throw unsupported(
        name,
        `stores disk ${printable(id)} as changes to another`,
        'remove the snapshots, then export again',
      );
    }
    const ref = disk.attribute('fileRef') ?? '';
    if (ref === '') {
      warn(`disk ${printable(id)} is empty in the package; left out`);
      continue;
    }
    const file = files.get(ref);
    if (file === undefined)
      throw damagedOvf(name, `disk ${printable(id)} refers to a file that is not listed`);
    if (disks.some((d) => d.href === file.href)) {
      throw damagedOvf(name, `two disks share the file ${printable(file.href)}`);
    }
    const place = places.get(id) ?? places.get(ref);
    if (place === undefined) warn(`disk ${printable(id)} is attached to no controller of the machine`);
    disks.push({
      ...(place ?? {
        bus: 'unknown' as const,
        controller: 0,
        unit: disks.length,
        order: Number.MAX_SAFE_INTEGER,
      }),
      id,
      href: file.href,
      fileBytes: file.sizeBytes,
      capacityBytes: capacityOf(disk, warn),
      format: formatOf(disk.attribute('format') ?? ''),
      compression: file.compression,
    });
  }
  if (disks.length === 0) {
    throw new PortError('NOT_A_DISK', `${name} describes a machine without disks`, {
      hint: 'export it with its disks',
    });
  }
  disks.sort((a, b) => a.order - b.order || a.unit - b.unit);
  return { disks, machine };
}
