/** Images of this project: those of this job, older versions, and strangers of the same name. */
import type { GlanceApi } from '../../../tools/openstack/glance.ts';
import type { GlanceImage } from '../../../tools/openstack/glance-types.ts';
import { STATE } from '../properties.ts';

/** Images beside the one that is to be uploaded. */
export interface Neighbours {
  /** Unfinished ones of this job. */
  unfinished: GlanceImage[];
  /** Finished ones of this name, made by port-image; newest first. */
  versions: GlanceImage[];
  /** Of this name, but not made by port-image: never touched. */
  foreign: GlanceImage[];
}

/** Lists them. Hidden images are versions that were replaced before. */
export async function readNeighbours(
  glance: GlanceApi,
  name: string,
  jobId: string,
  signal?: AbortSignal,
): Promise<Neighbours> {
  const owner = glance.session.projectId;
  const found: Neighbours = { unfinished: [], versions: [], foreign: [] };
  const unfinished = { owner, port_image_job: jobId, port_image_state: STATE.inProgress };
  for await (const image of glance.list(unfinished, { signal })) found.unfinished.push(image);
  for await (const image of glance.list({ owner, name }, { signal })) {
    // A filter the service does not know is ignored by some: look again.
    if (image.owner !== owner || image.name !== name || image.os_hidden) continue;
    if (image.port_image_state === STATE.complete && typeof image.port_image_id === 'string') {
      found.versions.push(image);
    } else if (image.port_image_job === undefined) {
      found.foreign.push(image);
    }
  }
  found.unfinished = found.unfinished.filter(
    (i) => i.owner === owner && i.port_image_job === jobId && i.port_image_state === STATE.inProgress,
  );
  found.versions.sort((a, b) => b.created_at.localeCompare(a.created_at));
  return found;
}
