/** What the ways of bringing content into Glance share. */
import type { CreatedImage, CreateInput } from '../../../core/sync/types.ts';
import type { GlanceImage } from '../../../tools/openstack/glance-types.ts';
import { RateLimit } from '../../../tools/source-machine/rate-limit.ts';
import type { GlanceRequest } from '../options.ts';
import type { UploadInput } from '../upload/types.ts';
import type { Meter } from './block-store.ts';
import type { SyncCloud } from './client.ts';

/** What is brought where. */
export interface ContentInput {
  cloud: SyncCloud;
  sync: string;
  create: CreateInput;
  request: GlanceRequest;
  delta: 'auto' | 'off';
  /** Makes another claim when Glance lost the image. */
  reclaim: () => Promise<GlanceImage>;
}

/** Content that is there and right. */
export type Arrived = Pick<
  CreatedImage,
  'method' | 'sentBytes' | 'changedBytes' | 'dataBytes' | 'content' | 'proof'
> & {
  image: GlanceImage;
};

/** Bytes of one image, all attempts counted. */
export class CountingMeter implements Meter {
  bytes = 0;
  readonly #limit: RateLimit | undefined;

  constructor(bytesPerSecond: number | undefined) {
    this.#limit = bytesPerSecond === undefined ? undefined : new RateLimit(bytesPerSecond);
  }

  sent(bytes: number): void {
    this.bytes += bytes;
  }

  waitMs(bytes: number): number {
    return this.#limit?.passed(bytes, performance.now()) ?? 0;
  }
}

/** What the parts for whole files of the upload code need. */
export function uploadInput(
  input: ContentInput,
  file: Pick<UploadInput, 'file' | 'bytes' | 'sha256' | 'sha512'>,
): UploadInput {
  const { create, request } = input;
  return {
    ...file,
    format: 'qcow2',
    name: create.wanted.name,
    properties: { properties: {}, minDisk: 0, minRam: 0 },
    request,
    jobId: '',
    rawSha256: async () => create.identity.rawSha256,
    signal: create.signal,
    onProgress: create.progress,
    warn: create.warn,
    log: create.log,
  };
}
