/**
 * A large file into a store that speaks Amazon's S3: parts by multipart upload, several at a time, each with its MD5 for
 * the store to compare. A killed run is gone on with: parts with the same MD5 are not sent again. For the S3 gates of
 * clouds that are not Amazon; checksums are those every such gate knows.
 */
import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import type { S3Client } from '@aws-sdk/client-s3';
import PQueue from 'p-queue';
import { asPortError, PortError } from '../core/errors.ts';
import { MIB } from '../core/sizes.ts';
import { printable } from '../core/text.ts';
import { isMissing, type S3Place, s3Error } from './s3-errors.ts';

/** S3 takes 10000 parts; some gates fewer. */
const MOST_PARTS = 9_000;
const PART_BYTES = 16 * MIB;
/** Each lane holds one part in memory. */
const LANES = 4;
const ATTEMPTS = 6;

/** What to put. */
export interface S3File {
  file: string;
  bytes: number;
  /** Hex, kept with the object. */
  sha256: string;
  key: string;
  partBytes?: number | undefined;
  signal: AbortSignal;
  /** Bytes that are in the store now. */
  onBytes: (bytes: number) => void;
}

/** A bucket behind an S3 gate. Throws CLOUD, CLOUD_LOGIN, CLOUD_REFUSED, CLOUD_MISMATCH, SOURCE_CHANGED, INTERRUPTED. */
export class S3Bucket {
  readonly #place: S3Place;
  readonly #client: S3Client;
  readonly #sdk: typeof import('@aws-sdk/client-s3');

  private constructor(sdk: typeof import('@aws-sdk/client-s3'), client: S3Client, place: S3Place) {
    this.#sdk = sdk;
    this.#client = client;
    this.#place = place;
  }

  /** Asks nothing yet. Close it. */
  static async open(place: S3Place): Promise<S3Bucket> {
    // not loaded by the many runs that send nothing
    const sdk = await import('@aws-sdk/client-s3');
    const client = new sdk.S3Client({
      endpoint: place.endpoint,
      region: place.region,
      forcePathStyle: place.pathStyle,
      ...(place.credentials === undefined ? {} : { credentials: place.credentials }),
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      maxAttempts: ATTEMPTS,
    });
    return new S3Bucket(sdk, client, place);
  }

  async #ask<T>(what: string, signal: AbortSignal | undefined, ask: () => Promise<T>): Promise<T> {
    try {
      signal?.throwIfAborted();
      return await ask();
    } catch (error) {
      throw s3Error(error, what, this.#place, signal);
    }
  }

  /** Size and kept sha256 of an object, or undefined when there is none. */
  async head(key: string, signal?: AbortSignal): Promise<{ bytes: number; sha256?: string } | undefined> {
    const command = new this.#sdk.HeadObjectCommand({ Bucket: this.#place.bucket, Key: key });
    try {
      const { ContentLength = -1, Metadata } = await this.#client.send(command, abort(signal));
      const sha256 = Metadata?.sha256;
      return { bytes: ContentLength, ...(sha256 === undefined ? {} : { sha256 }) };
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw s3Error(error, printable(key), this.#place, signal);
    }
  }

  /** Proves that objects can be made and removed, with one of a few bytes that is gone after. */
  async probe(key: string, signal?: AbortSignal): Promise<void> {
    const { bucket: Bucket } = this.#place;
    await this.#ask(`bucket ${Bucket}`, signal, () =>
      this.#client.send(
        new this.#sdk.PutObjectCommand({ Bucket, Key: key, Body: 'port-image' }),
        abort(signal),
      ),
    );
    await this.remove(key, signal);
  }

  /** No error when there is no such object. */
  async remove(key: string, signal?: AbortSignal): Promise<void> {
    const { bucket: Bucket } = this.#place;
    await this.#ask(`removing ${printable(key)}`, signal, () =>
      this.#client.send(new this.#sdk.DeleteObjectCommand({ Bucket, Key: key }), abort(signal)),
    );
  }

  /** Ends uploads of this key that were begun and not completed. */
  async sweep(key: string, signal?: AbortSignal): Promise<void> {
    for (const UploadId of await this.#begun(key, signal)) {
      await this.#ask(`ending the upload of ${printable(key)}`, signal, () =>
        this.#client.send(
          new this.#sdk.AbortMultipartUploadCommand({ Bucket: this.#place.bucket, Key: key, UploadId }),
          abort(signal),
        ),
      );
    }
  }

  async #begun(key: string, signal: AbortSignal | undefined): Promise<string[]> {
    const command = new this.#sdk.ListMultipartUploadsCommand({ Bucket: this.#place.bucket, Prefix: key });
    const { Uploads = [] } = await this.#ask('list of uploads', signal, () =>
      this.#client.send(command, abort(signal)),
    );
    return Uploads.flatMap((u) => (u.Key === key && u.UploadId !== undefined ? [u.UploadId] : []));
  }

  async #partsThere(key: string, UploadId: string, signal: AbortSignal): Promise<Map<number, string>> {
    const there = new Map<number, string>();
    let PartNumberMarker: string | undefined;
    do {
      const command = new this.#sdk.ListPartsCommand({
        Bucket: this.#place.bucket,
        Key: key,
        UploadId,
        ...(PartNumberMarker === undefined ? {} : { PartNumberMarker }),
      });
      const page = await this.#ask('list of parts', signal, () => this.#client.send(command, abort(signal)));
      for (const { PartNumber, ETag } of page.Parts ?? []) {
        if (PartNumber !== undefined && ETag !== undefined) there.set(PartNumber, ETag);
      }
      PartNumberMarker = page.IsTruncated ? page.NextPartNumberMarker : undefined;
    } while (PartNumberMarker !== undefined);
    return there;
  }

  /** Puts a file; returns the bytes that had to be sent. The object appears when it is complete. */
  async putFile(put: S3File): Promise<number> {
    const { key, bytes, file } = put;
    const there = await this.head(key, put.signal);
    if (there?.bytes === bytes && there.sha256 === put.sha256) {
      put.onBytes(bytes);
      return 0;
    }
    const { bucket: Bucket } = this.#place;
    const [known] = await this.#begun(key, put.signal);
    const UploadId =
      known ??
      (
        await this.#ask(`upload of ${printable(key)}`, put.signal, () =>
          this.#client.send(
            new this.#sdk.CreateMultipartUploadCommand({
              Bucket,
              Key: key,
              ContentType: 'application/octet-stream',
              Metadata: { sha256: put.sha256 },
            }),
            abort(put.signal),
          ),
        )
      ).UploadId;
    if (UploadId === undefined) throw new PortError('CLOUD', `${printable(key)}: no id of an upload came`);
    const old =
      known === undefined ? new Map<number, string>() : await this.#partsThere(key, UploadId, put.signal);
    const parts = await this.#sendParts(put, UploadId, old);
    await this.#ask(`upload of ${printable(key)}`, put.signal, () =>
      this.#client.send(
        new this.#sdk.CompleteMultipartUploadCommand({
          Bucket,
          Key: key,
          UploadId,
          MultipartUpload: { Parts: parts.map(({ ETag }, i) => ({ ETag, PartNumber: i + 1 })) },
        }),
        abort(put.signal),
      ),
    );
    const made = await this.head(key, put.signal);
    // The sha256 is that of the upload that was begun: another file of this name would show here.
    if (made?.bytes !== bytes || made.sha256 !== put.sha256) {
      await this.remove(key, put.signal);
      throw new PortError('CLOUD_MISMATCH', `${printable(key)} is not what was sent of ${printable(file)}`);
    }
    return parts.reduce((sum, part) => sum + part.sent, 0);
  }

  async #sendParts(put: S3File, UploadId: string, old: ReadonlyMap<number, string>) {
    const { bytes, file, key } = put;
    const partBytes = Math.max(put.partBytes ?? PART_BYTES, Math.ceil(bytes / MOST_PARTS / MIB) * MIB);
    const stop = new AbortController();
    const signal = AbortSignal.any([put.signal, stop.signal]);
    const queue = new PQueue({ concurrency: LANES });
    const handle = await fs.open(file, 'r').catch((error: unknown) => {
      throw asPortError(error);
    });
    const parts: { ETag: string; sent: number }[] = [];
    const one = async (index: number): Promise<void> => {
      const length = Math.min(partBytes, bytes - index * partBytes);
      const body = Buffer.allocUnsafe(length);
      for (let done = 0; done < length; ) {
        const { bytesRead } = await handle.read(body, done, length - done, index * partBytes + done);
        if (bytesRead === 0) throw new PortError('SOURCE_CHANGED', `${printable(file)} became shorter`);
        done += bytesRead;
      }
      const md5 = createHash('md5').update(body).digest();
      const before = old.get(index + 1);
      if (before !== undefined && before.replaceAll('"', '').toLowerCase() === md5.toString('hex')) {
        parts[index] = { ETag: before, sent: 0 };
      } else {
        const { ETag = '' } = await this.#ask(`part ${index + 1} of ${printable(key)}`, signal, () =>
          this.#client.send(
            new this.#sdk.UploadPartCommand({
              Bucket: this.#place.bucket,
              Key: key,
              UploadId,
              PartNumber: index + 1,
              Body: body,
              ContentMD5: md5.toString('base64'),
            }),
            abort(signal),
          ),
        );
        parts[index] = { ETag, sent: length };
      }
      put.onBytes(length);
    };
    try {
      const ends = await Promise.allSettled(
        Array.from({ length: Math.max(1, Math.ceil(bytes / partBytes)) }, (_, index) =>
          queue.add(async () => {
            signal.throwIfAborted();
            try {
              await one(index);
            } catch (error) {
              stop.abort();
              throw error;
            }
          }),
        ),
      );
      if (put.signal.aborted) throw new PortError('INTERRUPTED', 'interrupted');
      const failures = ends.flatMap((e) => (e.status === 'rejected' ? [asPortError(e.reason)] : []));
      if (failures[0] !== undefined) throw failures.find((e) => e.code !== 'INTERRUPTED') ?? failures[0];
    } finally {
      await handle.close();
    }
    return parts;
  }

  close(): void {
    this.#client.destroy();
  }
}

const abort = (signal: AbortSignal | undefined) => (signal === undefined ? {} : { abortSignal: signal });
