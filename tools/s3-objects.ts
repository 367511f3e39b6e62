/**
 * Objects of a bucket as streams: put in parts whose MD5 the service checks, read in ranges that go on where a connection
 * broke. For Amazon S3 and whatever speaks its protocol.
 */
import { createHash } from 'node:crypto';
import type * as Sdk from '@aws-sdk/client-s3';
import { PortError } from '../core/errors.ts';
import { MIB } from '../core/sizes.ts';
import { printable } from '../core/text.ts';
import { isMissing, s3Error } from './s3-errors.ts';

/** Where objects are kept. */
export interface S3Location {
  bucket: string;
  region: string;
  /** Another address than Amazon's: https, or http on this machine. */
  endpoint?: string | undefined;
  /** Of the shared AWS configuration files. */
  profile?: string | undefined;
}

/** What is known about an object. */
export interface S3Object {
  name: string;
  bytes: number;
  etag: string;
  modifiedMs?: number;
}

/** Parts are at least 5 MiB and at most 10 000 (docs.aws.amazon.com/AmazonS3, "Multipart upload limits"). */
const MOST_PARTS = 10_000;
const PART_BYTES = 16 * MIB;
const MOST_REQUESTS = 6;
const CONNECT_MS = 10_000;
const SILENCE_MS = 60_000;
const LOGIN_HINT = 'give AWS credentials that are valid now: environment, profile or role';

interface Sent {
  bytes: number;
  /** Hex. */
  sha256: string;
  etag: string;
}

/** A bucket. Throws CLOUD, CLOUD_LOGIN, CLOUD_REFUSED, STORE_MISMATCH, INTERRUPTED. Close it. */
export class S3Objects {
  readonly #sdk: typeof Sdk;
  readonly #client: Sdk.S3Client;
  readonly #place: S3Location;

  private constructor(sdk: typeof Sdk, client: Sdk.S3Client, place: S3Location) {
    this.#sdk = sdk;
    this.#client = client;
    this.#place = place;
  }

  /** Asks nothing yet. */
  static async open(place: S3Location): Promise<S3Objects> {
    const sdk = await import('@aws-sdk/client-s3');
    const client = new sdk.S3Client({
      region: place.region,
      ...(place.endpoint === undefined ? {} : { endpoint: place.endpoint, forcePathStyle: true }),
      ...(place.profile === undefined ? {} : { profile: place.profile }),
      // Others than Amazon refuse or ignore the SDK's trailing checksums; each part has its MD5.
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      maxAttempts: MOST_REQUESTS,
      requestHandler: { connectionTimeout: CONNECT_MS, socketTimeout: SILENCE_MS },
    });
    return new S3Objects(sdk, client, place);
  }

  close(): void {
    this.#client.destroy();
  }

  async #ask<T>(
    what: string,
    signal: AbortSignal | undefined,
    request: (options: { abortSignal?: AbortSignal }) => Promise<T>,
  ): Promise<T> {
    try {
      return await request(signal === undefined ? {} : { abortSignal: signal });
    } catch (error) {
      throw this.#told(error, what, signal);
    }
  }

  #told(error: unknown, what: string, signal: AbortSignal | undefined): PortError {
    const { bucket, region, endpoint = '' } = this.#place;
    return s3Error(
      error,
      printable(what),
      { bucket, region, endpoint, pathStyle: endpoint !== '', loginHint: LOGIN_HINT },
      signal,
    );
  }

  /** Proves that objects can be made and removed. */
  async probe(name: string, signal?: AbortSignal): Promise<void> {
    const { bucket: Bucket } = this.#place;
    await this.#ask(`writing to bucket ${Bucket}`, signal, (options) =>
      this.#client.send(new this.#sdk.PutObjectCommand({ Bucket, Key: name, Body: 'port-image' }), options),
    );
    await this.remove(name, signal);
  }

  /** Undefined when there is no such object. */
  async head(name: string, signal?: AbortSignal): Promise<S3Object | undefined> {
    try {
      const found = await this.#client.send(
        new this.#sdk.HeadObjectCommand({ Bucket: this.#place.bucket, Key: name }),
        signal === undefined ? {} : { abortSignal: signal },
      );
      return {
        name,
        bytes: found.ContentLength ?? 0,
        etag: found.ETag ?? '',
        ...(found.LastModified === undefined ? {} : { modifiedMs: found.LastModified.getTime() }),
      };
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw this.#told(error, `asking for ${name}`, signal);
    }
  }

  /** Objects whose name begins with `prefix`, in order of their names' bytes. */
  async *list(prefix: string, signal?: AbortSignal): AsyncGenerator<S3Object> {
    for await (const page of this.#pages(prefix, undefined, signal)) {
      for (const { Key, Size = 0, ETag = '', LastModified } of page.Contents ?? []) {
        if (Key === undefined) continue;
        const modifiedMs = LastModified?.getTime();
        yield { name: Key, bytes: Size, etag: ETag, ...(modifiedMs === undefined ? {} : { modifiedMs }) };
      }
    }
  }

  /** Names of the next level below `prefix`, which ends with a slash. */
  async *folders(prefix: string, signal?: AbortSignal): AsyncGenerator<string> {
    for await (const page of this.#pages(prefix, '/', signal)) {
      for (const { Prefix = '' } of page.CommonPrefixes ?? []) yield Prefix.slice(prefix.length, -1);
    }
  }

  async *#pages(
    prefix: string,
    delimiter: string | undefined,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Sdk.ListObjectsV2CommandOutput> {
    let token: string | undefined;
    do {
      const page = await this.#ask(`listing bucket ${this.#place.bucket}`, signal, (options) =>
        this.#client.send(
          new this.#sdk.ListObjectsV2Command({
            Bucket: this.#place.bucket,
            Prefix: prefix,
            ...(delimiter === undefined ? {} : { Delimiter: delimiter }),
            ...(token === undefined ? {} : { ContinuationToken: token }),
          }),
          options,
        ),
      );
      yield page;
      token = page.IsTruncated === true ? page.NextContinuationToken : undefined;
    } while (token !== undefined);
  }

  /** Bytes of an object from `from` up to `to`; those of exactly this version. */
  async *read(
    object: S3Object,
    from: number,
    to: number,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Uint8Array> {
    const { Body } = await this.#ask(`reading ${object.name}`, signal, (options) =>
      this.#client.send(
        new this.#sdk.GetObjectCommand({
          Bucket: this.#place.bucket,
          Key: object.name,
          Range: `bytes=${from}-${to - 1}`,
          IfMatch: object.etag,
        }),
        options,
      ),
    );
    try {
      for await (const piece of (Body ?? []) as AsyncIterable<Uint8Array>) yield piece;
    } catch (error) {
      throw this.#told(error, `reading ${object.name}`, signal);
    }
  }

  /** No error when there is no such object. */
  async remove(name: string, signal?: AbortSignal): Promise<void> {
    await this.#ask(`removing ${name}`, signal, (options) =>
      this.#client.send(
        new this.#sdk.DeleteObjectCommand({ Bucket: this.#place.bucket, Key: name }),
        options,
      ),
    );
  }

  /**
   * Puts a stream; it appears whole or not at all. What the service says it holds is compared with what was sent. `mostBytes` is
   * what it cannot be longer than.
   */
  async put(
    name: string,
    content: AsyncIterable<Uint8Array>,
    options: { contentType: string; mostBytes: number; signal: AbortSignal | undefined },
  ): Promise<Sent> {
    const partBytes = Math.max(PART_BYTES, Math.ceil(options.mostBytes / MOST_PARTS / MIB) * MIB);
    const hash = createHash('sha256');
    const parts = partsOf(content, partBytes, (piece) => hash.update(piece));
    const first = await parts.next();
    const start = first.done === true ? Buffer.alloc(0) : first.value;
    const second = start.length < partBytes ? undefined : await parts.next();
    const sent =
      second === undefined || second.done === true
        ? await this.#putWhole(name, start, options)
        : await this.#putParts(name, [start, second.value], parts, options);
    return { ...sent, sha256: hash.digest('hex') };
  }

  async #putWhole(
    name: string,
    body: Buffer,
    { contentType, signal }: { contentType: string; signal: AbortSignal | undefined },
  ): Promise<Omit<Sent, 'sha256'>> {
    const md5 = createHash('md5').update(body).digest();
    const { ETag = '' } = await this.#ask(`putting ${name}`, signal, (options) =>
      this.#client.send(
        new this.#sdk.PutObjectCommand({
          Bucket: this.#place.bucket,
          Key: name,
          Body: body,
          ContentType: contentType,
          ContentMD5: md5.toString('base64'),
        }),
        options,
      ),
    );
    return { bytes: body.length, etag: ETag };
  }

  async #putParts(
    name: string,
    begun: readonly Buffer[],
    rest: AsyncGenerator<Buffer>,
    { contentType, signal }: { contentType: string; signal: AbortSignal | undefined },
  ): Promise<Omit<Sent, 'sha256'>> {
    const target = { Bucket: this.#place.bucket, Key: name };
    const what = `putting ${name}`;
    const { UploadId } = await this.#ask(what, signal, (options) =>
      this.#client.send(
        new this.#sdk.CreateMultipartUploadCommand({ ...target, ContentType: contentType }),
        options,
      ),
    );
    try {
      const digests: Buffer[] = [];
      const etags: string[] = [];
      let bytes = 0;
      const send = async (body: Buffer) => {
        const md5 = createHash('md5').update(body).digest();
        const { ETag = '' } = await this.#ask(what, signal, (options) =>
          this.#client.send(
            new this.#sdk.UploadPartCommand({
              ...target,
              UploadId,
              PartNumber: etags.length + 1,
              Body: body,
              ContentMD5: md5.toString('base64'),
            }),
            options,
          ),
        );
        digests.push(md5);
        etags.push(ETag);
        bytes += body.length;
      };
      for (const body of begun) await send(body);
      for await (const body of rest) await send(body);
      const Parts = etags.map((ETag, i) => ({ ETag, PartNumber: i + 1 }));
      const done = await this.#ask(what, signal, (options) =>
        this.#client.send(
          new this.#sdk.CompleteMultipartUploadCommand({ ...target, UploadId, MultipartUpload: { Parts } }),
          options,
        ),
      );
      const made = await this.head(name, signal);
      // Amazon's ETag of parts; with encryption by a key of the customer it is something else, then the size must do.
      const whole = `${createHash('md5').update(Buffer.concat(digests)).digest('hex')}-${digests.length}`;
      const etag = done.ETag ?? made?.etag ?? '';
      const isOfParts = /^"?[0-9a-f]{32}-\d+"?$/.test(etag);
      if (made?.bytes !== bytes || (isOfParts && etag.replaceAll('"', '') !== whole)) {
        await this.remove(name, signal);
        throw new PortError('STORE_MISMATCH', `${printable(name)} is not in the bucket as it was sent`);
      }
      return { bytes, etag };
    } catch (error) {
      await this.#abort(name, UploadId ?? '').catch(() => {});
      throw error;
    }
  }

  async #abort(name: string, UploadId: string): Promise<void> {
    const { bucket: Bucket } = this.#place;
    await this.#client.send(new this.#sdk.AbortMultipartUploadCommand({ Bucket, Key: name, UploadId }), {
      abortSignal: AbortSignal.timeout(SILENCE_MS),
    });
  }

  /** Ends uploads below a prefix that were begun and never completed; they cost money and show nowhere. */
  async sweep(prefix: string, signal?: AbortSignal): Promise<number> {
    let ended = 0;
    let marker: { KeyMarker?: string; UploadIdMarker?: string } | undefined = {};
    while (marker !== undefined) {
      const from: { KeyMarker?: string; UploadIdMarker?: string } = marker;
      const page: Sdk.ListMultipartUploadsCommandOutput = await this.#ask(
        `listing uploads of bucket ${this.#place.bucket}`,
        signal,
        (options) =>
          this.#client.send(
            new this.#sdk.ListMultipartUploadsCommand({
              Bucket: this.#place.bucket,
              Prefix: prefix,
              ...from,
            }),
            options,
          ),
      );
      for (const { Key, UploadId } of page.Uploads ?? []) {
        if (Key === undefined || UploadId === undefined || !Key.startsWith(prefix)) continue;
        await this.#ask(`ending the upload of ${Key}`, signal, () => this.#abort(Key, UploadId));
        ended += 1;
      }
      marker =
        page.IsTruncated === true && page.NextKeyMarker !== undefined
          ? {
              KeyMarker: page.NextKeyMarker,
              ...(page.NextUploadIdMarker === undefined ? {} : { UploadIdMarker: page.NextUploadIdMarker }),
            }
          : undefined;
    }
    return ended;
  }
}

/** A stream in buffers of `partBytes`, the last one shorter. */
async function* partsOf(
  content: AsyncIterable<Uint8Array>,
  partBytes: number,
  onPiece: (piece: Uint8Array) => void,
): AsyncGenerator<Buffer> {
  let part = Buffer.allocUnsafe(partBytes);
  let filled = 0;
  for await (const piece of content) {
    onPiece(piece);
    for (let at = 0; at < piece.length; ) {
      const length = Math.min(partBytes - filled, piece.length - at);
      part.set(piece.subarray(at, at + length), filled);
      filled += length;
      at += length;
      if (filled < partBytes) continue;
      yield part;
      part = Buffer.allocUnsafe(partBytes);
      filled = 0;
    }
  }
  if (filled > 0) yield part.subarray(0, filled);
}
