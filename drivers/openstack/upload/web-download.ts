/** The detour over Swift: the file goes there in parts that a later run finds again, and Glance reads a signed URL. */
import type { GlanceApi } from '../../../tools/openstack/glance.ts';
import type { GlanceImage } from '../../../tools/openstack/glance-types.ts';
import { SwiftApi } from '../../../tools/openstack/swift.ts';
import { MARK_HEADER } from '../../../tools/openstack/swift-object.ts';
import { awaitImport, startImportOnce } from './import.ts';
import type { UploadInput } from './types.ts';

/** Glance opens the URL at once; the time is for a queue of imports before ours. */
const URL_LIFE_MS = 12 * 3600_000;
const MARK = 'image-upload';

/** The container of a job: no other job and no data store uses it. */
export function stagingContainer(jobId: string): string {
  return `port-image-upload-${jobId}`;
}

/** Puts the file into the container; parts of a killed run are not sent again. */
export async function putIntoSwift(swift: SwiftApi, input: UploadInput): Promise<{ object: string }> {
  const container = stagingContainer(input.jobId);
  await swift.ensureContainer(container, MARK, input.signal);
  const object = `${input.sha256}.${input.format}`;
  let doneBytes = 0;
  const put = await swift.putFile(container, object, input.file, {
    signal: input.signal,
    onBytes: (bytes) => {
      doneBytes += bytes;
      input.onProgress({ text: `uploading ${input.name} to Swift`, doneBytes, totalBytes: input.bytes });
    },
  });
  input.log.info('image in Swift', { bytes: put.bytes, sentBytes: put.sent });
  return { object };
}

/** Lets Glance read it. The URL is a secret and appears nowhere. */
export async function pullFromSwift(
  glance: GlanceApi,
  swift: SwiftApi,
  input: UploadInput,
  id: string,
  object: string,
): Promise<GlanceImage> {
  const url = await swift.tempUrl({
    container: stagingContainer(input.jobId),
    object,
    method: 'GET',
    lifeMs: URL_LIFE_MS,
    signal: input.signal,
  });
  await startImportOnce(glance, id, { method: 'web-download', url: new URL(url) }, input);
  return awaitImport(glance, id, input);
}

/** Removes what this job put into Swift, and its container. Never throws: nothing depends on it. */
export async function clearStaging(swift: SwiftApi, input: UploadInput, signal: AbortSignal): Promise<void> {
  const container = stagingContainer(input.jobId);
  try {
    // Somebody else's container may have the name; what is in it is not ours.
    if ((await swift.headContainer(container, signal))?.[MARK_HEADER] !== MARK) return;
    const names: string[] = [];
    for await (const object of swift.listObjects(container, '', signal)) names.push(object.name);
    for (const name of names) await swift.removeObject(container, name, signal);
    await swift.removeContainer(container, signal);
  } catch (error) {
    input.warn(`the container ${container} could not be removed: ${(error as Error).message}`);
  }
}

/** Whether the account has leftovers of this job. */
export async function hasStaging(
  session: GlanceApi['session'],
  jobId: string,
): Promise<SwiftApi | undefined> {
  const swift = new SwiftApi(session);
  return (await swift.headContainer(stagingContainer(jobId))) === undefined ? undefined : swift;
}
