/** The second phase: properties in one request, then who may see the image, then its older versions. */
import { PortError } from '../../../core/errors.ts';
import { pause } from '../../../core/pause.ts';
import type { GlanceApi } from '../../../tools/openstack/glance.ts';
import { namesIn } from '../../../tools/openstack/glance-import.ts';
import type { GlanceImage, PatchOperation } from '../../../tools/openstack/glance-types.ts';
import { isManaged, STATE } from '../properties.ts';
import type { Replaced, UploadInput } from './types.ts';

const ATTEMPTS = 3;
const PAUSE_MS = 2000;

/** Everything the finished image says about itself. */
export function finalProperties(input: UploadInput, rawSha256: string): Record<string, string> {
  return {
    ...input.properties.properties,
    ...input.signature,
    port_image_sha256: rawSha256,
    port_image_state: STATE.complete,
  };
}

/** Operations that turn an image's properties into the wanted ones; of those there, only our own are removed. */
export function patchFor(
  image: GlanceImage,
  wanted: Readonly<Record<string, string>>,
  attributes: Readonly<Record<string, number>>,
): PatchOperation[] {
  const operations: PatchOperation[] = [];
  for (const [key, value] of Object.entries({ ...attributes, ...wanted })) {
    if (image[key] !== value) operations.push({ op: 'add', path: `/${key}`, value });
  }
  for (const key of Object.keys(image)) {
    if (isManaged(key) && !Object.hasOwn(wanted, key)) operations.push({ op: 'remove', path: `/${key}` });
  }
  return operations;
}

/** Sets the properties, then visibility and protection, then offers it to the members. Safe to repeat. */
export async function publish(
  glance: GlanceApi,
  image: GlanceImage,
  input: UploadInput,
  rawSha256: string,
): Promise<GlanceImage> {
  const { signal, request, properties } = input;
  const wanted = finalProperties(input, rawSha256);
  const attributes = { min_disk: properties.minDisk, min_ram: properties.minRam };
  let now = image;
  let lost = Object.keys(wanted);
  // Read back, and set again: something of the cloud that works on the image may have written its own copy over ours.
  for (let attempt = 0; attempt < ATTEMPTS && lost.length > 0; attempt++) {
    if (attempt > 0) await pause(PAUSE_MS, signal);
    const operations = patchFor(now, wanted, attributes);
    if (operations.length > 0) await glance.patch(image.id, operations, { signal });
    const shown = await glance.show(image.id, { signal });
    if (shown === undefined) throw new PortError('CLOUD', `image ${image.id} vanished`);
    now = shown;
    lost = Object.keys(wanted).filter((key) => shown[key] !== wanted[key]);
  }
  if (lost.length > 0) {
    throw new PortError(
      'CLOUD_MISMATCH',
      `image ${image.id} did not take these properties: ${lost.join(', ')}`,
      {
        hint: 'ask the operator for property protections and import plugins',
      },
    );
  }
  const last: PatchOperation[] = [];
  if (now.visibility !== request.visibility) {
    last.push({ op: 'replace', path: '/visibility', value: request.visibility });
  }
  if (now.protected !== request.protected) {
    last.push({ op: 'replace', path: '/protected', value: request.protected });
  }
  if (last.length > 0) now = await glance.patch(image.id, last, { signal });
  if (request.visibility === 'shared') {
    for (const project of request.members) await glance.addMember(image.id, project, { signal });
  }
  return now;
}

/** Hides or removes the versions before this one. A failure is a warning: the new image is complete. */
export async function retire(
  glance: GlanceApi,
  image: GlanceImage,
  versions: readonly GlanceImage[],
  input: UploadInput,
): Promise<Replaced[]> {
  const { signal, request } = input;
  const replaced: Replaced[] = [];
  for (const old of versions) {
    // A version that came after this one, from another job, is not ours to retire.
    if (old.id === image.id || old.created_at > image.created_at) continue;
    try {
      if (request.onExists === 'replace') {
        await glance.remove(old.id, { signal });
        replaced.push({ id: old.id, action: 'deleted' });
      } else {
        await glance.patch(old.id, [{ op: 'replace', path: '/os_hidden', value: true }], { signal });
        replaced.push({ id: old.id, action: 'hidden' });
      }
    } catch (error) {
      if (signal.aborted) throw error;
      input.warn(`the older image ${old.id} stays as it is: ${(error as Error).message}`);
      replaced.push({ id: old.id, action: 'kept' });
    }
  }
  return replaced;
}

/** Stores an image is in. */
export function storesOf(image: GlanceImage): string[] {
  return namesIn(image.stores);
}
