/** Sends the content to a queued image, again when it has to; an image that does not come back is replaced by a new one. */
import { PortError } from '../../../core/errors.ts';
import { pause } from '../../../core/pause.ts';
import type { GlanceApi } from '../../../tools/openstack/glance.ts';
import { type Destination, putContent } from '../../../tools/openstack/glance-content.ts';
import type { GlanceImage } from '../../../tools/openstack/glance-types.ts';
import { HttpError } from '../../../tools/openstack/http.ts';
import { withRetries } from '../../../tools/openstack/retry.ts';
import { type SentFile, sentFile } from './content.ts';
import type { UploadInput } from './types.ts';

/** Glance notices a cut connection at its next read and then sets the image back to queued. */
const SETTLE_MS = 30_000;
const SETTLE_POLL_MS = 500;
const RETRIES = 5;

/** What was sent to which image. */
export interface SentImage {
  id: string;
  content: SentFile;
}

/**
 * Sends the file. `create` makes a queued image and `remove` takes one away; the id that is returned may not be that of
 * the first. Throws what the cloud refuses for good: CLOUD_REFUSED for a size cap, a quota or a missing role.
 */
export async function sendContent(
  glance: GlanceApi,
  input: UploadInput,
  options: {
    destination: Destination;
    store?: string | undefined;
    create: () => Promise<GlanceImage>;
    remove: (id: string) => Promise<void>;
  },
): Promise<SentImage> {
  const { signal, bytes } = input;
  const { destination } = options;
  const content = sentFile(input.file, {
    bytes,
    signal,
    summed: input.sha512 === undefined,
    pace: input.pace,
    onBytes: (doneBytes) =>
      input.onProgress({ text: `uploading ${input.name}`, doneBytes, totalBytes: bytes }),
  });
  let id: string | undefined;
  return withRetries(
    async () => {
      if (id !== undefined) {
        const state = await settled(glance, id, destination, signal);
        if (state === 'done') return { id, content };
        if (state === 'lost') {
          await options.remove(id);
          id = undefined;
        }
      }
      id ??= (await options.create()).id;
      const { answerTimeoutMs } = input;
      const upload = { body: content.body, bytes, store: options.store, answerTimeoutMs, signal };
      try {
        await putContent(glance, id, destination, upload);
      } catch (error) {
        throw await explained(glance, error, signal);
      }
      return { id, content };
    },
    {
      signal,
      retries: RETRIES,
      onRetry: (error, attempt) =>
        input.log.info('upload again', { attempt, code: error.code, message: error.message }),
    },
  );
}

/** After a failed attempt: `done` when the bytes arrived all the same, `lost` when the image takes no more. */
async function settled(
  glance: GlanceApi,
  id: string,
  destination: Destination,
  signal: AbortSignal,
): Promise<'queued' | 'done' | 'lost'> {
  for (const deadline = performance.now() + SETTLE_MS; performance.now() < deadline; ) {
    const image = await glance.show(id, { signal });
    if (image === undefined) return 'lost';
    if (image.status === 'queued') return 'queued';
    if (image.status === 'active') return 'done';
    // What is staged cannot be looked at: whole or half is the same to us.
    if (image.status !== (destination === 'file' ? 'saving' : 'uploading')) return 'lost';
    await pause(SETTLE_POLL_MS, signal);
  }
  return 'lost';
}

/** Names the limit where a bare status would not help; a conflict is worth another look at the image. */
export async function explained(glance: GlanceApi, error: unknown, signal: AbortSignal): Promise<unknown> {
  if (!(error instanceof HttpError)) return error;
  if (error.status === 409) {
    return new HttpError('CLOUD', error.message, { status: 409, temporary: true, cause: error });
  }
  if (error.status !== 413) return error;
  const usage = await glance.usage({ signal }).catch(() => undefined);
  const total = usage?.image_size_total;
  const count = usage?.image_count_total;
  const quota = [
    ...(total !== undefined && total.limit >= 0 ? [`${total.usage} of ${total.limit} MiB are in use`] : []),
    ...(count !== undefined && count.limit >= 0 && count.usage >= count.limit
      ? [`the project has ${count.usage} of ${count.limit} allowed images`]
      : []),
  ].join('; ');
  return new PortError('CLOUD_REFUSED', `the image is larger than this cloud takes: ${error.message}`, {
    hint: quota || 'the operator sets image_size_cap and the quota of the project',
    cause: error,
  });
}
