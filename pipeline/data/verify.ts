/** Reading a whole data set back and comparing every member with the list of entries. */
import { randomInt } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import type { Entry, Manifest, Segment } from '../../core/data-set.ts';
import { segmentDigests } from '../../core/data-set.ts';
import { PortError } from '../../core/errors.ts';
import { FileStore } from '../../drivers/stores/file.ts';
import {
  type ExpectedMember,
  readEntries,
  verifyObject,
  verifySegment,
} from '../../drivers/stores/read-back.ts';
import type { Store } from '../../drivers/stores/store.ts';
import { TAR_TYPES } from '../../tools/segment-tar.ts';
import { missingPart, objectsOf, requireManifest } from './sets.ts';

/** How many segments a sampled check reads besides the first and the last. */
const SAMPLES = 3;

/** How to check. */
export interface VerifyOptions {
  /** Sizes of everything, but the content of a few segments only. */
  sampled?: boolean;
  manifestSha256?: string;
  signal?: AbortSignal | undefined;
  onProgress?: (progress: { doneBytes: number; totalBytes: number; text: string }) => void;
}

/** What was proved. */
export interface VerifiedSet {
  id: string;
  /** Digest of the manifest everything was compared with. */
  manifestSha256: string;
  segments: number;
  /** How many of them were read and compared. */
  readSegments: number;
  readBytes: number;
  entries: number;
}

function broken(key: string, what: string): PortError {
  return new PortError('STORE_MISMATCH', `${key}: ${what}`, {
    hint: 'the store lost or changed data: restore from another copy, or convert again',
  });
}

function memberOf(entry: Entry): ExpectedMember {
  return {
    path: Buffer.from(entry.path, 'base64').toString('latin1'),
    type: TAR_TYPES[entry.type],
    size: entry.size,
    ...(entry.sha256 === undefined ? {} : { sha256: entry.sha256 }),
  };
}

/**
 * The members of each segment in order, from the list of entries: each entry but the root once, where its folder is
 * still bare, and all folders again in the last segment. The manifest's counts say where a segment ends.
 */
export async function* expectedMembers(
  manifest: Manifest,
  entries: AsyncIterable<Entry>,
): AsyncIterable<{ segment: Segment; members: ExpectedMember[] }> {
  const { segments, id } = manifest;
  const folders: ExpectedMember[] = [];
  let index = 0;
  let members: ExpectedMember[] = [];
  const last = segments.at(-1);
  if (last === undefined) throw broken(`${id}/manifest.json`, 'names no segment');
  for await (const entry of entries) {
    const member = memberOf(entry);
    if (entry.type === 'dir') folders.push(member);
    if (member.path === '') continue;
    const segment = segments[index];
    if (segment === undefined || segment === last) {
      throw broken(`${id}/${manifest.entries.key}`, 'lists more than the segments hold');
    }
    members.push(member);
    if (entry.type !== 'dir' && entry.segment !== index + 1) {
      throw broken(
        `${id}/${manifest.entries.key}`,
        `an entry of ${segment.key} says segment ${entry.segment}`,
      );
    }
    if (members.length < segment.entries) continue;
    yield { segment, members };
    members = [];
    index += 1;
  }
  if (members.length > 0 || index !== segments.length - 1) {
    throw broken(`${id}/${manifest.entries.key}`, 'lists less than the segments hold');
  }
  yield { segment: last, members: folders };
}

function chooseSegments(count: number, sampled: boolean): (index: number) => boolean {
  if (!sampled) return () => true;
  const chosen = new Set([0, count - 1]);
  for (let i = 0; i < SAMPLES; i += 1) chosen.add(randomInt(count));
  return (index) => chosen.has(index);
}

/** Checks one data set. Throws STORE_MISMATCH naming the object that is missing, changed or not what is listed. */
export async function verifySet(store: Store, id: string, options: VerifyOptions = {}): Promise<VerifiedSet> {
  const { signal } = options;
  const { manifest, sha256 } = await requireManifest(store, id, options.manifestSha256);
  const missing = missingPart(manifest, await objectsOf(store, id));
  if (missing !== undefined) throw broken(`${id}`, missing);
  const sums = segmentDigests(manifest.segments);
  await verifyObject(
    store,
    `${id}/segments.sha256`,
    { bytes: Buffer.byteLength(sums), sha256: manifest.segmentsSha256 },
    signal,
  );
  const scratch = await fs.mkdtemp(path.join(os.tmpdir(), 'port-image-verify-'));
  try {
    // The list is read from a copy: a connection would stand still for as long as each segment is read.
    const copy = new FileStore(scratch);
    const listKey = `${id}/${manifest.entries.key}`;
    const list = await store.get(listKey, { signal });
    let taken = false;
    const copied = await copy.put(
      listKey,
      () => {
        if (taken) throw new PortError('BUG', 'a copy of the list is made once');
        taken = true;
        return list as AsyncIterable<Uint8Array>;
      },
      { signal },
    );
    if (copied.sha256 !== manifest.entries.sha256) throw broken(listKey, 'is not what the manifest says');
    const isChosen = chooseSegments(manifest.segments.length, options.sampled === true);
    const totalBytes = manifest.segments.reduce((sum, s, i) => sum + (isChosen(i) ? s.bytes : 0), 0);
    let index = 0;
    let readSegments = 0;
    let readBytes = 0;
    for await (const { segment, members } of expectedMembers(manifest, readEntries(copy, manifest))) {
      signal?.throwIfAborted();
      if (isChosen(index)) {
        options.onProgress?.({ doneBytes: readBytes, totalBytes, text: `${id}/${segment.key}` });
        await verifySegment(store, id, segment, members, signal);
        readSegments += 1;
        readBytes += segment.bytes;
      }
      index += 1;
    }
    return {
      id,
      manifestSha256: sha256,
      segments: manifest.segments.length,
      readSegments,
      readBytes,
      entries: manifest.entryCount,
    };
  } finally {
    await fs.rm(scratch, { recursive: true, force: true });
  }
}
