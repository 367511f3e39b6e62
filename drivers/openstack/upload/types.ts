/** What an upload to Glance is given and what it leaves. */
import type { Log } from '../../../core/log.ts';
import type { Progress } from '../../../core/stage.ts';
import type { GlanceImage } from '../../../tools/openstack/glance-types.ts';
import type { GlanceRequest, UploadMethod } from '../options.ts';
import type { ImageProperties } from '../properties.ts';
import type { SignatureProperties } from '../signature.ts';
import type { Comparison } from './compare.ts';

/** A way that was chosen. */
export type ChosenMethod = Exclude<UploadMethod, 'auto'>;

/** What to upload and how to publish it. */
export interface UploadInput {
  /** Absolute path. */
  file: string;
  bytes: number;
  /** sha256 of the file, hex. */
  sha256: string;
  /** sha512 of the file, hex. Without it the file is summed while it is sent. */
  sha512?: string | undefined;
  /** Glance's disk_format. */
  format: string;
  name: string;
  properties: ImageProperties;
  request: GlanceRequest;
  /** Marks the images of this job; the same for every run of it and for no other job. */
  jobId: string;
  /** sha256 of the disk the image shows, hex. Runs beside the upload. */
  rawSha256: () => Promise<string>;
  /** Sent with the other properties when the image is signed. */
  signature?: SignatureProperties | undefined;
  signal: AbortSignal;
  onProgress: (event: Progress) => void;
  warn: (text: string) => void;
  log: Log;
  /** Told each piece of the file before it is sent; what it waits for slows the upload down. */
  pace?: (bytes: number) => Promise<void>;
  /** An import that shows no change for so long has failed. Default 15 min. */
  importStallMs?: number;
  /** Longest wait for Glance's answer after the last byte of the content. By default minutes, more for large images. */
  answerTimeoutMs?: number;
  /** Pause between two looks at an import. Default 2 s. */
  pollMs?: number;
}

/** An image whose bytes are there and right. */
export interface Arrived {
  image: GlanceImage;
  method: ChosenMethod;
  comparison: Comparison;
}

/** What happened to an older image of the same name. */
export interface Replaced {
  id: string;
  action: 'hidden' | 'deleted' | 'kept';
}

/** Digest by which the cloud's copy was compared. */
export interface RemoteHash {
  algorithm: string;
  /** Hex. */
  value: string;
  /** True for md5: it finds damage, not forgery. */
  weak: boolean;
}

/** An upload that is done. Holds no secrets. */
export interface GlanceResult {
  imageId: string;
  name: string;
  cloud: string;
  method: ChosenMethod;
  bytes: number;
  /** The cloud's own digest of what it stores. */
  hash: RemoteHash | undefined;
  /** `unverifiable`: the cloud rewrote the image and its content could not be compared. */
  verified: 'ok' | 'unverifiable';
  /** How it was verified, or why it could not be. */
  proof: string;
  /** Format the cloud keeps it in. */
  diskFormat: string;
  stores: string[];
  visibility: string;
  replaced: Replaced[];
  properties: Record<string, string>;
  minDisk: number;
  minRam: number;
}
