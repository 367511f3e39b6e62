/** A store for data sets: object storage, reduced to what every kind of it can do. */
import type { Readable } from 'node:stream';
import type { Provision } from '../../core/contract.ts';

/** What is known about a stored object. */
export interface StoredObject {
  key: string;
  bytes: number;
  /** sha256 in hex, when the store keeps one. */
  sha256?: string;
  /** The store's own tag, for conditional requests; means nothing elsewhere. */
  etag?: string;
  /** Milliseconds since 1970. */
  modifiedMs?: number;
  /** `put` found the same bytes there already and sent none. */
  kept?: boolean;
}

/** Content that can be read from its start again: called once per attempt, and once more to compare leftovers. */
export type Content = () => AsyncIterable<Uint8Array>;

/** How to put an object. */
export interface PutOptions {
  /** Exact length when known. */
  bytes?: number;
  /** The length cannot be more than this; without it the store has to send in parts. */
  maxBytes?: number;
  contentType?: string;
  signal?: AbortSignal | undefined;
}

/** How to get an object or a part of it. */
export interface GetOptions {
  offsetBytes?: number;
  lengthBytes?: number;
  signal?: AbortSignal | undefined;
}

/** How to make URLs for an instance. */
export interface ProvisionOptions {
  /** Milliseconds the URLs live. */
  lifeMs: number;
  /** The only addresses they work from: an IP address or range in CIDR form. */
  ipRange?: string;
  signal?: AbortSignal | undefined;
}

/** A provision document and what is needed to reach its URLs from this machine. */
export interface Provisioned {
  document: Provision;
  /** `https://host:port` all URLs of the document begin with. */
  upstream: string;
  /** Path prefixes of the URLs, without query. */
  paths: string[];
  /** PEM file with the certificate authority of `upstream`. */
  caFile?: string | undefined;
}

/**
 * A flat space of keys. Keys are relative paths of clean parts (see `checkKey`); a prefix is no folder and needs no
 * creation. An object appears whole or not at all and replaces an older one of the same key. The first part of a key is the id of
 * a data set. Failures are PortErrors
 * with STORE (temporary when trying again may heal it), DISK_SPACE, HOST_IO, or CLOUD_* where the store is a cloud's.
 */
export interface Store {
  /** How the user named it, without secrets. */
  readonly url: string;
  /** How many objects are best sent at a time; the caller decides when absent. */
  readonly lanes?: number;
  /** Proves that it can be written to, by a harmless call; `neededBytes` is compared with free space where known. */
  check(neededBytes: number): Promise<void>;
  /** The result always has the sha256 of the bytes that were handed over, whatever the store keeps. */
  put(key: string, content: Content, options?: PutOptions): Promise<StoredObject>;
  /** Content as a stream; throws STORE when there is no such object. */
  get(key: string, options?: GetOptions): Promise<Readable>;
  /** Undefined when there is no such object. */
  head(key: string): Promise<StoredObject | undefined>;
  /** Objects whose key starts with `prefix`, in order of keys. */
  list(prefix: string): AsyncIterable<StoredObject>;
  /** No error when there is no such object. */
  remove(key: string): Promise<void>;
  /**
   * Removes what killed puts left below a prefix. Only call it for a prefix nobody else writes to. `keepResumable` spares what
   * a new put of the same key can go on with.
   */
  sweep?(prefix: string, options?: { keepResumable?: boolean }): Promise<number>;
  /** Ids of the data sets it holds, complete or not, in order. */
  ids(): AsyncIterable<string>;
  /** URLs with which an instance reads these data sets and nothing else. Absent where a store cannot sign any. */
  provision?(ids: readonly string[], options: ProvisionOptions): Promise<Provisioned>;
  /** Makes every URL of a data set worthless and proves it with one made before. */
  revoke?(id: string, options?: { signal?: AbortSignal | undefined }): Promise<void>;
  /** Ends connections; the store is not used after it. */
  close?(): Promise<void>;
}
