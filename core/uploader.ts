/** The way into a cloud: what every `drivers/<platform>/` that can upload and register offers. */
import type * as z from 'zod';
import type { Contract } from './contract.ts';
import type { Facts } from './facts.ts';
import type { Log } from './log.ts';
import type { Platform } from './platform.ts';
import type { Change, Progress } from './stage.ts';
import type { Artifact } from './types.ts';

/** What an uploader is given. */
export interface UploadContext<Options> {
  /** Name of the image, as the user chose it. */
  readonly name: string;
  /** The target's options, checked by the uploader's schema. */
  readonly options: Options;
  readonly platform: Platform;
  readonly facts: Facts;
  /** Images for this platform, that of the system first; empty in a plan made before encoding. */
  readonly artifacts: readonly Artifact[];
  /** Virtual size of the largest disk, bytes; known in a plan too. */
  readonly virtualBytes: number;
  /** Made by chance for this job: the same in every run of it, and in no other job. Marks what is ours in the cloud. */
  readonly mark: string;
  /** Of the contract: id, version and source of the image. Empty in a plan. */
  readonly identity: { readonly id?: string; readonly version?: string; readonly source?: string };
  /** What the image says about itself; undefined in a plan. */
  readonly contract: Contract | undefined;
  /** sha256 of contract.json, hex; empty in a plan. */
  readonly contractSha256: string;
  /** Names of the packages the conversion installed. */
  readonly packages: readonly string[];
  /** Path of the user data an instance is started with; undefined when it needs none. */
  readonly userDataFile: string | undefined;
  /** Whether the image proved itself in the verification boot; undefined when none was asked for. */
  readonly verified: boolean | undefined;
  /** Absolute path of a file of this job where the uploader keeps what a resumed run needs; may not exist yet. */
  readonly stateFile: string;
  /** Scratch folder of the running process. */
  readonly tmp: string;
  readonly signal: AbortSignal;
  readonly log: Log;
  /** sha256 of the disk an image shows, hex, as `sha256sum` of its raw form; no raw copy is written. */
  rawSha256(artifact: Artifact): Promise<string>;
  progress(event: Progress): void;
  /** Records an intended (plan) or made change in the cloud. */
  change(change: Omit<Change, 'stage'>): void;
  warn(text: string): void;
}

/** An image that is registered in a cloud. Holds no secrets. */
export interface CloudImage {
  platform: string;
  /** Account, region, project or server, as the user would name it. */
  place: string;
  /** What the cloud calls it: `ami-…`, a resource id, a link, an inventory path. */
  id: string;
  name: string;
  /** How the bytes went there: `ebs-direct`, `page-blob`, … */
  method: string;
  /** Bytes of the image that hold data. */
  bytes: number;
  /** Bytes sent by this run; less than `bytes` when an earlier run or a parent had some. */
  sentBytes: number;
  /** `ok` when the cloud's own digest or a read-back proves the content; `unverifiable` when it offers neither. */
  content: 'ok' | 'unverifiable';
  /** How the content was proved, or why it could not be. One sentence. */
  proof: string;
  /** Older images of ours and what became of them. */
  replaced: { id: string; action: string }[];
  /** The command that starts an instance. */
  start: string;
  /** Images or disks made of further disks of the server. */
  disks: { disk: string; id: string; name: string }[];
  /** Anything else worth showing, plain words: snapshot id, copies in other regions. */
  details: Record<string, string>;
}

/** A driver's client. `plan` proves access and changes nothing that lasts; `upload` may be called again after a kill. */
export interface Uploader<Options = unknown, Plan = unknown> {
  /** The platform's name. */
  readonly platform: string;
  /** One line for the manual: what is made where. */
  readonly summary: string;
  /** Options of a target, none of them secret; credentials come by the cloud's own usual ways. */
  readonly Options: z.ZodType<Options>;
  /**
   * Logs in and finds the services, so that a wrong name or password is told before the disk is looked at. Throws CONFIG,
   * CLOUD_LOGIN, CLOUD_REFUSED, CLOUD.
   */
  login?(options: Options, signal: AbortSignal): Promise<void>;
  /** Throws CONFIG, CLOUD_LOGIN, CLOUD_REFUSED, CLOUD_CONFLICT, CLOUD before a byte is edited. */
  plan(ctx: UploadContext<Options>): Promise<Plan>;
  /** Uploads, registers, waits until usable, tags, shares; removes or resumes half-made things of this job only. */
  upload(ctx: UploadContext<Options>, plan: Plan): Promise<CloudImage>;
}
