/**
 * Upload of one image to Glance in two phases: private and marked as in progress while its bytes travel and are
 * compared; then properties, and only then visibility, protection and sharing. A killed run leaves nothing public, and
 * the next run of the same job adopts or removes what it left.
 */
import { PortError } from '../../../core/errors.ts';
import { printable } from '../../../core/text.ts';
import { GlanceApi } from '../../../tools/openstack/glance.ts';
import type { GlanceImage } from '../../../tools/openstack/glance-types.ts';
import type { CloudSession } from '../../../tools/openstack/session.ts';
import { sendFresh } from './fresh.ts';
import { adoptLeftovers, finishedImage, sweepLeftovers, sweepStaging } from './leftovers.ts';
import { chooseMethod, readOffer } from './method.ts';
import { readNeighbours } from './own-images.ts';
import { publish, retire, storesOf } from './publish.ts';
import type { GlanceResult, UploadInput } from './types.ts';

export type { GlanceResult, UploadInput } from './types.ts';

/**
 * Uploads, verifies and publishes. Throws CLOUD_REFUSED, CLOUD_CONFLICT, CLOUD_MISMATCH, CLOUD_LOGIN, CLOUD,
 * INTERRUPTED; then nothing of it is visible to others.
 */
export async function uploadImage(session: CloudSession, input: UploadInput): Promise<GlanceResult> {
  const { signal } = input;
  const glance = await GlanceApi.open(session, { signal });
  const offer = await readOffer(glance, signal);
  const { method, why } = chooseMethod(input.request, offer, input.bytes);
  input.log.info('upload method', { method, why });
  // Reads the disk while the file travels; a failure shows when it is needed.
  const raw = input.rawSha256();
  raw.catch(() => {});
  const { versions, unfinished } = await readNeighbours(glance, input.name, input.jobId, signal);
  const arrived =
    (await finishedImage(glance, input, versions)) ??
    (await adoptLeftovers(glance, input, unfinished, method)) ??
    (await sendFresh(glance, offer, input, method));
  refuseExisting(input, versions, arrived.image.id);
  const image = await publish(glance, arrived.image, input, await raw);
  const replaced = await retire(glance, image, versions, input);
  await sweepLeftovers(glance, input);
  if (offer.hasObjectStore) await sweepStaging(glance, input);
  const { comparison } = arrived;
  if (comparison.verified !== 'ok') input.warn(`the upload could not be verified: ${comparison.proof}`);
  return {
    imageId: image.id,
    name: input.name,
    cloud: session.config.name,
    method: arrived.method,
    bytes: image.size ?? input.bytes,
    hash: comparison.hash,
    verified: comparison.verified,
    proof: comparison.proof,
    diskFormat: image.disk_format ?? input.format,
    stores: storesOf(image),
    visibility: image.visibility,
    replaced,
    properties: Object.fromEntries(
      Object.keys({ ...input.properties.properties, port_image_sha256: '' })
        .map((key) => [key, image[key]])
        .filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
    ),
    minDisk: input.properties.minDisk,
    minRam: input.properties.minRam,
  };
}

/** `fail` is refused in the plan; somebody may have made one since. */
function refuseExisting(input: UploadInput, versions: readonly GlanceImage[], own: string): void {
  const other = versions.find((v) => v.id !== own);
  if (input.request.onExists !== 'fail' || other === undefined) return;
  throw new PortError(
    'CLOUD_CONFLICT',
    `the project has an image ${printable(input.name)} already: ${other.id}`,
    { hint: 'take --on-exists new-version or another --name' },
  );
}
