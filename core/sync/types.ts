/**
 * The vocabulary of `port-image sync`.
 *
 *     source ──list──▶ SyncImage ──open──▶ LocalDisk (raw view, block index) ──create──▶ target, private ▶ verified ▶ visible
 *                          │                                                              ▲
 *                          └──────────── plan: create, update, skip, hide, delete ◀──list─┘
 *
 * An image is the same in two places when series, version and the sha256 of its raw content are. Names, UUIDs and a cloud's own
 * checksum never decide that.
 */

import type { PortError } from '../errors.ts';
import type { Log } from '../log.ts';
import type { Progress } from '../stage.ts';
import type { BlockIndex } from './block-index.ts';

/** What an image is. */
export interface ImageIdentity {
  /** Stays the same from version to version: the name an image was first given. Of `SYNC_SERIES`. */
  series: string;
  /** Sorts by `compareVersions`; unique within a series. */
  version: string;
  /** sha256 of the disk it shows, as `sha256sum` of its raw form, hex. */
  rawSha256: string;
}

/** Form of a series and of a version: part of names of objects, tags and properties. */
export const SYNC_WORD = /^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$/;

/** An image a source offers. Everything in it came from outside: print with `printable`. */
export interface SyncImage extends Omit<ImageIdentity, 'rawSha256'> {
  /** How the source names it, for messages and to open it: id in Glance, path of a file. */
  ref: string;
  /** Name it has in the source. */
  name: string;
  /** Undefined while nobody has read it. */
  rawSha256?: string | undefined;
  /** Strong digest of the file as the source keeps it, `sha512:HEX` or `sha256:HEX`; undefined when the source has none. */
  fileDigest?: string | undefined;
  /** qemu-img's name. */
  format: string;
  fileBytes: number;
  virtualBytes?: number | undefined;
  /** ISO 8601. */
  createdAt: string;
  /** As the kernel names it: `x86_64`. */
  arch: string;
  firmware: 'bios' | 'uefi';
  minDiskGib: number;
  minRamMib: number;
  /** What travels with it, by Glance's names (`os_distro`, `hw_disk_bus`, …); without anything a cloud keeps for itself. */
  properties: Record<string, string>;
  /** Ids of the data sets it needs. */
  dataSets: string[];
}

/** What every call to a source or target is given. */
export interface SyncContext {
  readonly signal: AbortSignal;
  readonly log: Log;
  progress(event: Progress): void;
  warn(text: string): void;
}

/** What listing a source is given. */
export interface ListContext extends SyncContext {
  /** Tells of what would be an image and cannot be used, such as a file that is cut off; the others go on. */
  leaveOut(what: string, error: PortError): void;
}

/** What a source has and nobody can use, or could not make anew. */
export interface LeftOut {
  /** Of the configuration. */
  source: string;
  /** File, folder or server. */
  what: string;
  code: string;
  message: string;
  hint?: string | undefined;
}

/** An image that was brought here, as a file. */
export interface FetchedSyncImage {
  path: string;
  format: string;
  /** Bytes that travelled for it in this run. */
  receivedBytes: number;
}

/** Where images come from. */
export interface SyncSource {
  /** As in the configuration. */
  readonly name: string;
  /** Images that fit the configuration, all versions, newest first in each series. One listing, no content. */
  list(ctx: ListContext): Promise<SyncImage[]>;
  /**
   * The image as a file of this machine: the source's own one, never to be written to, or a copy below `dir`, which a later call
   * of a killed run goes on with. Throws SOURCE_REMOTE, SOURCE_CHANGED, DAMAGED, DISK_SPACE, INTERRUPTED.
   */
  fetch(
    image: SyncImage,
    dir: string,
    ctx: SyncContext & { bytesPerSecond?: number | undefined },
  ): Promise<FetchedSyncImage>;
  close(): Promise<void>;
}

/** A disk that is read here, the same for every target. */
export interface LocalDisk {
  /** Its bytes, as a plain read-only file; holes are holes. */
  rawPath: string;
  virtualBytes: number;
  /** Blocks that hold something, with their digests; its `rawSha256` is that of the whole. */
  index: BlockIndex;
}

/** How an image shall look in a target: made from the rule that fits. */
export interface WantedImage {
  name: string;
  visibility: 'private' | 'shared' | 'community' | 'public';
  members: string[];
  protected: boolean;
  properties: Record<string, string>;
}

/** An image of this sync in a target. */
export interface TargetImage extends ImageIdentity {
  /** The cloud's name for it: UUID, `ami-…`, blob name. */
  ref: string;
  name: string;
  /** Digest of the file it was made of, as SyncImage.fileDigest; '' when that was not known. */
  fileDigest: string;
  /** `in-progress`: another run is at it, or died. */
  state: 'complete' | 'in-progress';
  /** Who makes or made it: `RUN@HOST`. */
  owner: string;
  /** Last sign of life of an unfinished one, ISO 8601. */
  aliveAt: string;
  /** Readers that look for the newest image of a name do not find it. */
  hidden: boolean;
  /** Since when, ISO 8601; '' when it is not hidden. */
  hiddenAt: string;
  /** ISO 8601. */
  createdAt: string;
  bytes: number;
  /** `wantedDigest` of what was asked for when it was published or last updated. */
  wanted: string;
  /** The cloud says that something was started from it or depends on it; undefined when it cannot tell. */
  inUse: boolean | undefined;
  /** The cloud refuses to delete it. */
  protected: boolean;
}

/** What `create` is given. */
export interface CreateInput extends SyncContext {
  image: SyncImage;
  identity: ImageIdentity;
  disk: LocalDisk;
  wanted: WantedImage;
  /** Digest of `wanted`, to be kept with the image. */
  wantedDigest: string;
  /** `RUN@HOST`. */
  owner: string;
  /** An unfinished image of another owner without a sign of life for so long is taken over. */
  staleAfterMs: number;
  /** Folder of this machine for what a resumed run needs; it is a cache, and may be gone. */
  stateDir: string;
  /** Scratch folder, emptied by the caller. */
  tmp: string;
  uploadBytesPerSecond?: number | undefined;
  /** To be called when the content is there and right, before anybody can see it; throws VERIFY_FAILED. Absent: nothing to prove. */
  prove?: (() => Promise<void>) | undefined;
}

/** An image that was made. */
export interface CreatedImage {
  ref: string;
  /** `put`, `blocks`, `ebs-direct`, `page-ranges`, … */
  method: string;
  /** True when another run had made it, or an earlier one of ours: nothing was to be done. */
  adopted: boolean;
  /** Bytes sent into the target, everything counted. */
  sentBytes: number;
  /** Bytes of the disk's blocks that were not there before (whole blocks, not compressed); 0 when adopted. */
  changedBytes: number;
  /** Bytes of all blocks of the disk that hold something. */
  dataBytes: number;
  content: 'ok' | 'unverifiable';
  /** How the content was proved. One sentence. */
  proof: string;
}

/** Where images go. Touches nothing that does not carry the mark of this sync. */
export interface SyncTarget {
  /** As in the configuration. */
  readonly name: string;
  readonly platform: string;
  /** Account, region or project, as the user would name it. */
  readonly place: string;
  /** Requests sent to the cloud so far. */
  calls(): number;
  /** What the clock of the place shows, where it tells; clocks of hosts may be wrong, and nobody may delete by one that is. */
  now?(): Date;
  /** Every image of this sync, finished or not. One listing. */
  list(ctx: SyncContext): Promise<TargetImage[]>;
  /**
   * Private, then verified, then visible. Looks again before it makes anything: of two runs at once one makes the image, and the
   * other gets SYNC_BUSY (temporary) while it is unfinished and adopts it afterwards. A kill leaves nothing public, and what it
   * leaves the next call adopts or removes. Throws SYNC_BUSY, CLOUD_*, VERIFY_FAILED, SOURCE_CHANGED, HOST_IO, INTERRUPTED.
   */
  create(input: CreateInput): Promise<CreatedImage>;
  /** Name, visibility, sharing and properties only, in as few requests as the cloud allows; a hidden image is shown again. */
  update(image: TargetImage, wanted: WantedImage, wantedDigest: string, ctx: SyncContext): Promise<void>;
  /** Deprecates it: who uses its id still can, who looks for the newest does not see it. Remembers when. Safe to repeat. */
  hide(image: TargetImage, ctx: SyncContext): Promise<void>;
  /** Removes it with what only it needs. Throws CLOUD_CONFLICT, naming why, when the cloud refuses; no error when it is gone. */
  remove(image: TargetImage, ctx: SyncContext): Promise<void>;
  /** Removes blocks and leftovers no image of this sync needs, never those of a run that is alive. Returns the bytes freed. */
  sweep(images: readonly TargetImage[], ctx: SyncContext): Promise<number>;
  close(): Promise<void>;
}

/** What shall be done with one image in one target. */
export type SyncVerb = 'create' | 'update' | 'skip' | 'hide' | 'delete';

/** One line of the plan. */
export interface SyncAction {
  verb: SyncVerb;
  target: string;
  /** Of the configuration; '' for an image that is retired. */
  source: string;
  series: string;
  version: string;
  /** Name in the target. */
  name: string;
  /** The source's own name for it; '' for an image that is retired. */
  sourceRef: string;
  /** The target's own name for it; '' while it is not there. */
  targetRef: string;
  /** One sentence. */
  why: string;
  /** Most bytes it may send; what is sent is less where the target has blocks of it. */
  mostBytes: number;
}

/** A version that will be retired in a later night. */
export interface ComingRetirement {
  target: string;
  series: string;
  version: string;
  name: string;
  targetRef: string;
  what: 'hide' | 'delete';
  /** ISO 8601; the first run after it does it. */
  notBefore: string;
}

/** What a run will do, and nothing else. */
export interface SyncPlan {
  schema: 'port-image/sync-plan/1';
  sync: string;
  /** ISO 8601. */
  madeAt: string;
  actions: SyncAction[];
  coming: ComingRetirement[];
  /** Sources or targets that could not be asked; their images are left alone. */
  unreachable: {
    kind: 'source' | 'target';
    name: string;
    code: string;
    message: string;
    hint?: string | undefined;
  }[];
  leftOut: LeftOut[];
  /** Whatever else deserves a look: two images of one name, names that do not fit, … */
  notes: string[];
}

/** What became of an action. */
export interface SyncOutcome {
  action: SyncAction;
  /** `deferred`: outside the window, or another run is at it; the next run does it. `changed`: not as planned, see message. */
  result: 'done' | 'adopted' | 'skipped' | 'failed' | 'deferred' | 'changed';
  /** Of the error. */
  code?: string | undefined;
  message?: string | undefined;
  hint?: string | undefined;
  /** Of a failure: trying again may heal it. */
  temporary?: boolean | undefined;
  /** The target's own name for the image. */
  ref?: string | undefined;
  method?: string | undefined;
  sentBytes: number;
  changedBytes: number;
  /** Bytes of the disk's blocks that hold something; of an image that is in place, those of its file. */
  dataBytes: number;
  /** Bytes fetched from the source for it; counted once when several targets share an image. */
  receivedBytes: number;
  seconds: number;
  attempts: number;
  content?: 'ok' | 'unverifiable' | undefined;
  proof?: string | undefined;
}

/** What became of a data set that was carried along. */
export interface DataSetOutcome {
  id: string;
  target: string;
  result: 'done' | 'skipped' | 'failed';
  sentBytes: number;
  /** Bytes that were there already. */
  keptBytes: number;
  code?: string | undefined;
  message?: string | undefined;
}

/** One run. Written as JSON, shown as a page, kept in the ledger. Holds no secrets. */
export interface SyncReport {
  schema: 'port-image/sync-run/1';
  sync: string;
  /** `20260821T010000Z-ab12cd`. */
  run: string;
  host: string;
  /** ISO 8601. */
  startedAt: string;
  endedAt: string;
  seconds: number;
  outcomes: SyncOutcome[];
  dataSets: DataSetOutcome[];
  coming: ComingRetirement[];
  unreachable: SyncPlan['unreachable'];
  leftOut: LeftOut[];
  notes: string[];
  /** Requests sent, by target. */
  calls: Record<string, number>;
  /** Blocks freed in targets, bytes. */
  freedBytes: number;
  /** Status the program ends with. */
  exitStatus: number;
  /** True when a signal ended it, and while nothing has ended it yet. */
  interrupted: boolean;
  /** True when only some of it was asked for (`--only`, `retry`): it says nothing of the rest. */
  partial: boolean;
}
