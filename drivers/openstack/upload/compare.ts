/** Whether the cloud holds what was sent. */
import { createHash } from 'node:crypto';
import { PortError } from '../../../core/errors.ts';
import { fileDigests } from '../../../core/files.ts';
import type { GlanceApi } from '../../../tools/openstack/glance.ts';
import { downloadContent } from '../../../tools/openstack/glance-content.ts';
import type { GlanceImage } from '../../../tools/openstack/glance-types.ts';
import { HttpError } from '../../../tools/openstack/http.ts';
import { withRetries } from '../../../tools/openstack/retry.ts';
import type { SentFile } from './content.ts';
import type { RemoteHash, UploadInput } from './types.ts';

/** What a comparison found. */
export interface Comparison {
  verified: 'ok' | 'unverifiable';
  hash: RemoteHash | undefined;
  proof: string;
}

/** Algorithms of os_hash_algo that are compared directly. md5 is the old `checksum`. */
const STRONG = new Set(['sha256', 'sha384', 'sha512', 'sha3_256', 'sha3_512', 'blake2b']);
const NODE_NAME: Readonly<Record<string, string>> = {
  sha3_256: 'sha3-256',
  sha3_512: 'sha3-512',
  blake2b: 'blake2b512',
};

/** The digest the cloud made of what it stores. */
export function remoteHash(image: GlanceImage): RemoteHash | undefined {
  const { os_hash_algo: algorithm, os_hash_value: value, checksum } = image;
  if (algorithm && value && STRONG.has(algorithm)) {
    return { algorithm, value: value.toLowerCase(), weak: false };
  }
  return checksum ? { algorithm: 'md5', value: checksum.toLowerCase(), weak: true } : undefined;
}

/** True when the cloud's copy is the file: same size, format and digest. */
export async function isSameFile(image: GlanceImage, input: UploadInput, sent?: SentFile): Promise<boolean> {
  const hash = remoteHash(image);
  if (image.size !== input.bytes || image.disk_format !== input.format || hash === undefined) return false;
  return hash.value === (await ownDigest(hash.algorithm, input, sent));
}

/** As it was encoded; else from the bytes as they were sent; else from the file. */
async function ownDigest(algorithm: string, input: UploadInput, sent: SentFile | undefined): Promise<string> {
  const digests = sent?.digests();
  if (digests !== undefined && digests.sha256 !== input.sha256) throw tampered(input);
  if (algorithm === 'sha256') return input.sha256;
  const sha512 = input.sha512 ?? digests?.sha512;
  if (algorithm === 'sha512' && sha512 !== undefined) return sha512;
  const [sha256, digest = ''] = await fileDigests(
    input.file,
    ['sha256', NODE_NAME[algorithm] ?? algorithm],
    input.signal,
  );
  if (sha256 !== input.sha256) throw tampered(input);
  return digest;
}

function tampered(input: UploadInput): PortError {
  return new PortError('JOB_TAMPERED', `${input.name}: the image file is not the one that was encoded`, {
    hint: 'encode it again: port-image stage encode --again',
  });
}

/**
 * Compares an active image with the file. A cloud that converts on import keeps another file; then the disk it shows is
 * read back where its format is raw, and otherwise cannot be compared here. Throws CLOUD_MISMATCH.
 */
export async function compareRemote(
  glance: GlanceApi,
  image: GlanceImage,
  input: UploadInput,
  sent?: SentFile,
): Promise<Comparison> {
  const hash = remoteHash(image);
  if (image.disk_format !== input.format) return converted(glance, image, input, hash);
  if (image.size !== input.bytes) {
    throw mismatch(image, `it holds ${image.size ?? 'no'} bytes of ${input.bytes}`);
  }
  if (hash === undefined) {
    const sha256 = await downloadDigest(glance, image.id, input);
    if (sha256 !== input.sha256) throw mismatch(image, 'its content read back is not the file');
    return { verified: 'ok', hash, proof: 'read back: the cloud keeps no digest' };
  }
  if (hash.value !== (await ownDigest(hash.algorithm, input, sent))) {
    // Either the cloud changed it, or somebody changed the file after it was encoded.
    const [sha256] = await fileDigests(input.file, ['sha256'], input.signal);
    if (sha256 !== input.sha256) throw tampered(input);
    throw mismatch(image, `its ${hash.algorithm} is not that of the file`);
  }
  return { verified: 'ok', hash, proof: `${hash.algorithm} of the file` };
}

async function converted(
  glance: GlanceApi,
  image: GlanceImage,
  input: UploadInput,
  hash: RemoteHash | undefined,
): Promise<Comparison> {
  const format = image.disk_format ?? 'an unknown format';
  if (format !== 'raw') {
    return { verified: 'unverifiable', hash, proof: `the cloud converted ${input.format} to ${format}` };
  }
  const [there, here] = await Promise.all([downloadDigest(glance, image.id, input), input.rawSha256()]);
  if (there !== here) throw mismatch(image, 'the disk it shows is not the one that was sent');
  return { verified: 'ok', hash, proof: 'converted to raw by the cloud; its content was read back' };
}

/** sha256 of the content as the cloud gives it back, streamed. */
async function downloadDigest(glance: GlanceApi, id: string, input: UploadInput): Promise<string> {
  const { signal } = input;
  return withRetries(
    async () => {
      const answer = await downloadContent(glance, id, { signal });
      const hash = createHash('sha256');
      const totalBytes = Number(answer.headers['content-length'] ?? 0);
      let doneBytes = 0;
      try {
        for await (const chunk of answer.body) {
          hash.update(chunk as Buffer);
          doneBytes += (chunk as Buffer).length;
          input.onProgress({ text: `reading ${input.name} back`, doneBytes, totalBytes });
        }
      } catch (error) {
        if (signal.aborted) throw new PortError('INTERRUPTED', 'interrupted', { cause: error });
        throw new HttpError('CLOUD', `download of image ${id} was cut`, {
          status: 0,
          temporary: true,
          cause: error,
        });
      }
      return hash.digest('hex');
    },
    { signal },
  );
}

function mismatch(image: GlanceImage, what: string): PortError {
  return new PortError('CLOUD_MISMATCH', `image ${image.id} in the cloud is not what was sent: ${what}`, {
    hint: 'it was taken away again; run the job once more, and ask the operator when it repeats',
  });
}
