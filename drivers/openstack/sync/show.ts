/** What an image of a sync looks like in Glance: properties in one request, who may see it in the last. */
import { PortError } from '../../../core/errors.ts';
import { GIB } from '../../../core/sizes.ts';
import type { CreateInput, WantedImage } from '../../../core/sync/types.ts';
import type { GlanceApi } from '../../../tools/openstack/glance.ts';
import type { GlanceImage, PatchOperation } from '../../../tools/openstack/glance-types.ts';
import { isManaged, isPortable, STATE } from '../properties.ts';
import { MARK } from './marks.ts';

const ATTEMPTS = 3;

/** Marks a finished image has, but for the digest of what is wanted: `show` sets that one last. */
export function finalMarks(create: CreateInput, sync: string): Record<string, string> {
  const { identity, image, owner } = create;
  const data = image.dataSets.join(',');
  return {
    [MARK.sync]: sync,
    [MARK.id]: `${identity.series}-${identity.version}`,
    [MARK.series]: identity.series,
    [MARK.version]: identity.version,
    [MARK.raw]: identity.rawSha256,
    [MARK.file]: image.fileDigest ?? '-',
    [MARK.state]: STATE.complete,
    [MARK.owner]: owner,
    ...(data === '' || data.length > 255 ? {} : { [MARK.data]: data }),
  };
}

/** Least size of a machine's disk, GiB. */
export function minDiskOf(create: CreateInput): number {
  return Math.max(1, create.image.minDiskGib, Math.ceil(create.disk.virtualBytes / GIB));
}

/** Operations from what is there to what shall be; only properties of ours and portable ones are ever removed. */
export function operationsFor(
  now: GlanceImage,
  properties: Readonly<Record<string, string>>,
  attributes: Readonly<Record<string, string | number | boolean>>,
): PatchOperation[] {
  const operations: PatchOperation[] = [];
  for (const [key, value] of Object.entries({ ...attributes, ...properties }))
    if (now[key] !== value) operations.push({ op: 'add', path: `/${key}`, value });
  for (const key of Object.keys(now)) {
    const isOurs = (isManaged(key) || isPortable(key)) && !Object.hasOwn(properties, key);
    if (isOurs) operations.push({ op: 'remove', path: `/${key}` });
  }
  return operations;
}

/** Sets name and properties, until they are as wanted: an import may write its own copy over ours. Throws CLOUD_MISMATCH. */
export async function setProperties(
  glance: GlanceApi,
  id: string,
  properties: Readonly<Record<string, string>>,
  attributes: Readonly<Record<string, string | number | boolean>>,
  signal: AbortSignal,
): Promise<GlanceImage> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const now = await glance.show(id, { signal });
    if (now === undefined) throw new PortError('CLOUD', `image ${id} vanished`);
    const operations = operationsFor(now, properties, attributes);
    if (operations.length === 0) return now;
    const patched = await glance.patch(id, operations, { signal });
    if (operationsFor(patched, properties, attributes).length === 0 && attempt > 0) return patched;
  }
  throw new PortError('CLOUD_MISMATCH', `image ${id} did not take its properties`, {
    hint: 'ask the operator for property protections and import plugins',
  });
}

/**
 * The last step: who may see it. Then the digest of what was wanted: a run that is killed before finds that something is to be done.
 * `more` goes along in the first request.
 */
export async function show(
  glance: GlanceApi,
  image: GlanceImage,
  wanted: WantedImage,
  wantedDigest: string,
  signal: AbortSignal,
  more: readonly PatchOperation[] = [],
): Promise<void> {
  const seal: PatchOperation = { op: 'add', path: `/${MARK.wanted}`, value: wantedDigest };
  const operations: PatchOperation[] = [...more];
  if (image.visibility !== wanted.visibility)
    operations.push({ op: 'replace', path: '/visibility', value: wanted.visibility });
  if (image.protected !== wanted.protected)
    operations.push({ op: 'replace', path: '/protected', value: wanted.protected });
  // Glance knows members of shared images only.
  const isShared = wanted.visibility === 'shared';
  if (!isShared) operations.push(seal);
  if (operations.length > 0) await glance.patch(image.id, operations, { signal });
  if (!isShared) return;
  const members = await glance.members(image.id, { signal });
  for (const project of wanted.members)
    if (!members.includes(project)) await glance.addMember(image.id, project, { signal });
  for (const project of members)
    if (!wanted.members.includes(project)) await glance.removeMember(image.id, project, { signal });
  await glance.patch(image.id, [seal], { signal });
}
