/** OVF packages: the members of an OVA, or the files of a folder, by what the descriptor says. */
import { createHash } from 'node:crypto';
import * as path from 'node:path';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import type { OpenedSource } from '../image-format/open.ts';
import { type ByteSource, damaged, readExact } from '../image-format/reader.ts';
import { hasExtension } from './kind.ts';
import { type ExpectedDigest, MAX_MANIFEST_BYTES, parseManifest } from './manifest.ts';
import { requirePlainName } from './names.ts';
import { type OvfDisk, parseOvf } from './ovf.ts';
import type { PlanParts } from './plan.ts';
import { openBeside } from './sibling.ts';
import { readTar, type TarMember } from './tar-reader.ts';
import type { DiskOrigin, PackedDisk } from './types.ts';
import { MAX_XML_BYTES } from './xml.ts';

type Warn = (text: string) => void;
/** Finds the file of a name in the package; undefined when there is none. */
type Lookup = (name: string) => Promise<DiskOrigin | undefined>;

async function wholeText(source: ByteSource, offset: number, sizeBytes: number, what: string, limit: number) {
  if (sizeBytes > limit) {
    throw new PortError('UNSAFE_IMAGE', `${source.name} is refused: ${what} takes ${sizeBytes} bytes`, {
      hint: 'export the machine again',
    });
  }
  return readExact(source, offset, sizeBytes, what);
}

/** Name of the manifest that goes with a descriptor: the same, but for its end. */
function manifestOf(descriptor: string): string {
  return descriptor.replace(/\.ovf$/i, '.mf');
}

function checkDescriptor(
  source: ByteSource,
  name: string,
  data: Buffer,
  digests: readonly ExpectedDigest[],
): void {
  for (const { algorithm, hex } of digests) {
    if (createHash(algorithm).update(data).digest('hex') !== hex) {
      throw damaged(source, `${printable(name)} has not the ${algorithm} its manifest says`);
    }
  }
}

/** The name without `%20` and its like: an href is a URL reference, though most tools write the name as it is. */
function decoded(owner: string, href: string): string {
  try {
    const name = decodeURIComponent(href);
    requirePlainName(owner, name);
    return name;
  } catch (error) {
    if (error instanceof PortError) throw error;
    return href; // a percent sign that stands for itself
  }
}

async function disksOf(
  source: ByteSource,
  disks: readonly OvfDisk[],
  manifest: ReadonlyMap<string, readonly ExpectedDigest[]> | undefined,
  lookup: Lookup,
  warn: Warn,
): Promise<PackedDisk[]> {
  const found: PackedDisk[] = [];
  for (const [index, disk] of disks.entries()) {
    const asIs = await lookup(disk.href);
    const fileName = asIs === undefined ? decoded(source.name, disk.href) : disk.href;
    const origin = asIs ?? (await lookup(fileName));
    const name = printable(fileName);
    if (found.some((d) => d.name === fileName)) throw damaged(source, `two disks share the file ${name}`);
    if (origin === undefined) throw damaged(source, `the file of a disk is missing: ${name}`);
    if (origin.sizeBytes === 0) throw damaged(source, `the file of a disk is empty: ${name}`);
    if (disk.fileBytes !== undefined && disk.fileBytes !== origin.sizeBytes) {
      throw damaged(source, `${name} has ${origin.sizeBytes} bytes, its descriptor says ${disk.fileBytes}`);
    }
    const digests = manifest?.get(fileName) ?? [];
    if (manifest !== undefined && digests.length === 0)
      warn(`the manifest has no digest of ${name}: it is not checked`);
    found.push({
      id: `disk${index}`,
      name: fileName,
      origin,
      compression: disk.compression,
      declaredBytes: disk.compression === undefined ? origin.sizeBytes : undefined,
      capacityBytes: disk.capacityBytes,
      format: disk.format,
      bus: disk.bus,
      controller: disk.controller,
      unit: disk.unit,
      bootHint: index === 0,
      digests,
    });
  }
  return found;
}

/** Reads an OVA: one descriptor, its manifest, and where the disks lie. */
export async function planOva(source: OpenedSource, warn: Warn): Promise<PlanParts> {
  const members = await readTar(source);
  const descriptors = members.filter((m) => hasExtension(m.name, 'ovf'));
  const [descriptor, second] = descriptors;
  if (descriptor === undefined) throw damaged(source, 'it holds no OVF descriptor');
  if (second !== undefined) {
    throw new PortError('UNSUPPORTED_FORMAT', `${source.name} holds several descriptors`, {
      hint: 'export each machine by itself',
    });
  }
  if (members[0] !== descriptor)
    warn('the descriptor is not the first member of the OVA, as the specification wants');
  const text = (member: TarMember, what: string, limit: number) =>
    wholeText(source, member.offsetBytes, member.sizeBytes, what, limit);
  const data = await text(descriptor, 'its descriptor', MAX_XML_BYTES);
  const folder = path.posix.dirname(descriptor.name);
  const inFolder = (name: string) => (folder === '.' ? name : `${folder}/${name}`);
  const others = members.filter((m) => hasExtension(m.name, 'mf'));
  const list =
    others.find((m) => m.name === manifestOf(descriptor.name)) ??
    (others.length === 1 ? others[0] : undefined);
  if (list === undefined) warn('it has no manifest: damage on the way here would not be seen');
  const manifest =
    list && parseManifest((await text(list, 'its manifest', MAX_MANIFEST_BYTES)).toString('utf8'), warn);
  const name = path.posix.basename(descriptor.name);
  checkDescriptor(source, name, data, manifest?.get(name) ?? []);
  const ovf = parseOvf(source.name, data, warn);
  const lookup: Lookup = async (href) => {
    const member = members.find((m) => m.name === inFolder(href));
    return member && { kind: 'member', offsetBytes: member.offsetBytes, sizeBytes: member.sizeBytes };
  };
  return { machine: ovf.machine, disks: await disksOf(source, ovf.disks, manifest, lookup, warn) };
}

/** Reads a descriptor whose disks lie beside it. */
export async function planOvfFolder(source: OpenedSource, warn: Warn): Promise<PlanParts> {
  const data = await wholeText(source, 0, source.sizeBytes, 'its descriptor', MAX_XML_BYTES);
  const name = path.basename(source.path);
  const folder = path.dirname(source.path);
  const list = hasExtension(name, 'ovf')
    ? await openBeside(folder, manifestOf(name), source.name)
    : undefined;
  let manifest: ReadonlyMap<string, readonly ExpectedDigest[]> | undefined;
  if (list === undefined) warn('it has no manifest: damage on the way here would not be seen');
  else {
    try {
      const content = await wholeText(list, 0, list.sizeBytes, 'its manifest', MAX_MANIFEST_BYTES);
      manifest = parseManifest(content.toString('utf8'), warn);
    } finally {
      await list.close();
    }
  }
  checkDescriptor(source, name, data, manifest?.get(name) ?? []);
  const ovf = parseOvf(source.name, data, warn);
  const lookup: Lookup = async (href) => {
    const file = await openBeside(folder, href, source.name);
    if (file === undefined) return undefined;
    await file.close();
    return { kind: 'file', path: file.path, sizeBytes: file.sizeBytes, modifiedMs: file.modifiedMs };
  };
  return { machine: ovf.machine, disks: await disksOf(source, ovf.disks, manifest, lookup, warn) };
}
