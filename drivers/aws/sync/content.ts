/** The content of an image as a snapshot: begun under the lock of its client token, gone on with, or found complete. */
import { createHash } from 'node:crypto';
import type { EBSClient } from '@aws-sdk/client-ebs';
import type { Snapshot } from '@aws-sdk/client-ec2';
import { PortError } from '../../../core/errors.ts';
import { GIB } from '../../../core/sizes.ts';
import { isoDate } from '../../../core/sync/dates.ts';
import type { CreateInput, LocalDisk, TargetImage } from '../../../core/sync/types.ts';
import type { SnapshotRecord } from '../../../tools/aws/block-journal.ts';
import { type PutSnapshot, putSnapshot } from '../../../tools/aws/put-snapshot.ts';
import { Pace } from '../../../tools/blocks/pace.ts';
import { VerifiedReader } from '../../../tools/blocks/verified-reader.ts';
import { EBS_BLOCK_BYTES } from '../../../tools/ebs/api.ts';
import { clientToken } from '../marks.ts';
import { ALIVE_TAG, descriptionOf, identityTags, markOf, OWNER_TAG, STATE_TAG } from './marks.ts';
import type { Records } from './records.ts';

/** What an upload needs besides the image. */
export interface ContentPlace {
  sync: string;
  ebs: EBSClient;
  records: Records;
  kmsKeyArn: string | undefined;
  /** Complete snapshots of the series whose disk is known, newest first. */
  parents: readonly { image: TargetImage; snapshot: string }[];
  /** Told of the snapshot, before its first block. */
  begun: (snapshot: string) => Promise<void>;
  signal: AbortSignal;
}

/** Numbers of EBS blocks that hold something by the index of the disk, ascending. */
function blocksOf({ index, virtualBytes }: LocalDisk): number[] {
  const blocks: number[] = [];
  let next = 0;
  for (const number of index.numbers) {
    const start = number * index.blockBytes;
    const end = Math.ceil(Math.min(start + index.blockBytes, virtualBytes) / EBS_BLOCK_BYTES);
    for (let at = Math.max(next, Math.floor(start / EBS_BLOCK_BYTES)); at < end; at++) blocks.push(at);
    next = Math.max(next, end);
  }
  return blocks;
}

/** What the newest version's snapshot shows, when it can be the parent of a disk of this size. */
async function parentOf(input: CreateInput, place: ContentPlace): Promise<SnapshotRecord | undefined> {
  for (const { image, snapshot } of place.parents) {
    const record = await place.records.of(markOf(place.sync, image), snapshot, input);
    // A record that is not complete may miss blocks, and they would show through.
    // EBS makes no snapshot smaller than its parent.
    const fits = (record?.volumeGib ?? 0) <= Math.ceil(input.disk.virtualBytes / GIB);
    if (record?.completed === true && fits) return record;
  }
  return undefined;
}

/** The parent an upload was begun with: another one now would leave blocks of the first. */
function begunWith(record: SnapshotRecord): SnapshotRecord | undefined {
  if (record.parent === undefined) return undefined;
  const { parent, volumeGib, inherited } = record;
  return { snapshot: parent, sha256: '', volumeGib, blocks: new Map(), inherited, completed: true };
}

/**
 * Uploads, or goes on with `known`. `dead` are unfinished snapshots that were given up: they make the lock another one. Throws
 * CLOUD_CONFLICT when another run has the lock.
 */
export async function putContent(
  input: CreateInput,
  place: ContentPlace,
  known: SnapshotRecord | undefined,
  dead: readonly string[],
): Promise<PutSnapshot> {
  const { identity, disk } = input;
  const mark = markOf(place.sync, identity);
  const parent = known === undefined ? await parentOf(input, place) : begunWith(known);
  const pace = new Pace(input.uploadBytesPerSecond);
  const reader = await VerifiedReader.open(disk);
  try {
    return await putSnapshot(place.ebs, {
      file: disk.rawPath,
      sha256: identity.rawSha256,
      virtualBytes: disk.virtualBytes,
      journal: await place.records.file(mark),
      clientToken: clientToken(mark, ...[...dead].sort()),
      description: descriptionOf(place.sync, identity),
      // The owner makes requests of two runs different, and EBS takes one of them for a token.
      tags: {
        ...identityTags(place.sync, identity, input.image.fileDigest ?? ''),
        Name: input.wanted.name.slice(0, 255),
        [STATE_TAG]: 'in-progress',
        [OWNER_TAG]: input.owner,
        [ALIVE_TAG]: isoDate(new Date()),
      },
      parent,
      kmsKeyArn: place.kmsKeyArn,
      blocks: blocksOf(disk),
      read: (index, buffer) => reader.fill(buffer, index * EBS_BLOCK_BYTES),
      beforeSend: (bytes) => pace.wait(bytes, place.signal),
      begun: place.begun,
      tokenIsLock: true,
      signal: place.signal,
      log: input.log,
      onBytes: (doneBytes, totalBytes) =>
        input.progress({ text: `writing a snapshot of ${identity.series}`, doneBytes, totalBytes }),
    });
  } finally {
    await reader.close();
  }
}

/** The record of a complete snapshot whose own one is lost: it shows this disk, as EBS has confirmed. */
export async function recordFromDisk(
  input: CreateInput,
  snapshot: Pick<Snapshot, 'SnapshotId' | 'VolumeSize'>,
): Promise<SnapshotRecord> {
  const { disk, identity } = input;
  const blocks = new Map<number, string>();
  const reader = await VerifiedReader.open(disk);
  try {
    const buffer = Buffer.alloc(EBS_BLOCK_BYTES);
    const zero = Buffer.alloc(EBS_BLOCK_BYTES);
    for (const index of blocksOf(disk)) {
      input.signal.throwIfAborted();
      await reader.fill(buffer, index * EBS_BLOCK_BYTES);
      if (!buffer.equals(zero)) blocks.set(index, createHash('sha256').update(buffer).digest('base64'));
    }
  } finally {
    await reader.close();
  }
  return {
    snapshot: snapshot.SnapshotId ?? '',
    sha256: identity.rawSha256,
    volumeGib: snapshot.VolumeSize ?? Math.ceil(disk.virtualBytes / GIB),
    blocks,
    inherited: new Map(),
    completed: true,
  };
}

/** Throws SOURCE_CHANGED when the disk is not the image that is asked for. */
export function requireIdentity({ identity, disk }: CreateInput): void {
  if (disk.index.rawSha256 !== identity.rawSha256)
    throw new PortError('SOURCE_CHANGED', `the disk of ${identity.series} is not the one that was planned`);
}
