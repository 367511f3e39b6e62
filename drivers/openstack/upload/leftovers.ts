/** What earlier, killed runs of the same job left in the cloud: taken over where it is whole, else removed. */
import type { GlanceApi } from '../../../tools/openstack/glance.ts';
import type { GlanceImage } from '../../../tools/openstack/glance-types.ts';
import { compareRemote, isSameFile } from './compare.ts';
import { awaitImport } from './import.ts';
import { readNeighbours } from './own-images.ts';
import type { Arrived, ChosenMethod, UploadInput } from './types.ts';
import { clearStaging, hasStaging } from './web-download.ts';

/** Time for what is taken away at the end. */
const CLEAN_UP_MS = 60_000;

/** This job's own image, complete since a run that was killed before it could say so. */
export async function finishedImage(
  glance: GlanceApi,
  input: UploadInput,
  versions: readonly GlanceImage[],
): Promise<Arrived | undefined> {
  for (const image of versions) {
    if (image.port_image_job !== input.jobId || image.status !== 'active') continue;
    if (!(await isSameFile(image, input))) continue;
    const comparison = await compareRemote(glance, image, input);
    return { image, method: methodOf(image), comparison };
  }
  return undefined;
}

/** How a finished image came in: an import leaves the list of failed stores behind, a PUT nothing. */
function methodOf(image: GlanceImage): ChosenMethod {
  return image.os_glance_failed_import === undefined ? 'put' : 'import';
}

/** Leftovers of this job: a whole one is taken over, one Glance still imports is waited for, the rest removed. */
export async function adoptLeftovers(
  glance: GlanceApi,
  input: UploadInput,
  leftovers: readonly GlanceImage[],
  method: ChosenMethod,
): Promise<Arrived | undefined> {
  let found: Arrived | undefined;
  for (const left of leftovers) {
    let image: GlanceImage = left;
    if (found === undefined && left.status === 'importing') {
      input.log.info('an earlier run left an import at work', { image: left.id });
      image = await awaitImport(glance, left.id, input).catch((error: unknown) => {
        if (input.signal.aborted) throw error;
        return left;
      });
    }
    if (found === undefined && image.status === 'active' && (await isSameFile(image, input))) {
      input.log.info('taken over from an earlier run', { image: image.id });
      found = { image, method, comparison: await compareRemote(glance, image, input) };
      continue;
    }
    input.log.info('leftover removed', { image: image.id, status: image.status });
    await glance.remove(image.id, { signal: input.signal });
  }
  return found;
}

/** A request of a killed run may have reached Glance after our first look. Nothing depends on it. */
export async function sweepLeftovers(glance: GlanceApi, input: UploadInput): Promise<void> {
  const { name, jobId, signal, log } = input;
  try {
    const { unfinished } = await readNeighbours(glance, name, jobId, signal);
    for (const image of unfinished) await glance.remove(image.id, { signal });
  } catch (error) {
    log.warn('leftovers stay', { message: String(error) });
  }
}

/** Takes away what web-download put into Swift, in this run or an earlier one. Best effort, with time of its own. */
export async function sweepStaging(glance: GlanceApi, input: UploadInput): Promise<void> {
  const signal = AbortSignal.timeout(CLEAN_UP_MS);
  const swift = await hasStaging(glance.session, input.jobId).catch(() => undefined);
  if (swift !== undefined) await clearStaging(swift, input, signal);
}
