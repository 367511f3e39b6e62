/** A store for data sets: object storage, reduced to what every kind of it can do. */
import type { Readable } from 'node:stream';

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
}

/** How to put an object. */
export interface PutOptions {
  /** Exact length when known; without it the store has to send in parts. */
  bytes?: number;
  contentType?: string;
  signal?: AbortSignal | undefined;
}

/** How to get an object or a part of it. */
export interface GetOptions {
  offsetBytes?: number;
  lengthBytes?: number;
  signal?: AbortSignal | undefined;
}

/**
 * A flat space of keys. Keys are relative paths of clean parts (see `checkKey`); a prefix is no folder and needs no
 * creation. An object appears whole or not at all and replaces an older one of the same key. Failures are PortErrors
 * with STORE (temporary when trying again may heal it), DISK_SPACE or HOST_IO.
 */
export interface Store {
  /** How the user named it, without secrets. */
  readonly url: string;
  /** Proves that it can be written to, by a harmless call; `neededBytes` is compared with free space where known. */
  check(neededBytes: number): Promise<void>;
  /** The result always has the sha256 of the bytes that were handed over, whatever the store keeps. */
  put(key: string, body: AsyncIterable<Uint8Array>, options?: PutOptions): Promise<StoredObject>;
  /** Content as a stream; throws STORE when there is no such object. */
  get(key: string, options?: GetOptions): Promise<Readable>;
  /** Undefined when there is no such object. */
  head(key: string): Promise<StoredObject | undefined>;
  /** Objects whose key starts with `prefix`, in order of keys. */
  list(prefix: string): AsyncIterable<StoredObject>;
  /** No error when there is no such object. */
  remove(key: string): Promise<void>;
  /** Removes what killed puts left below a prefix. Only call it for a prefix nobody else writes to. */
  sweep?(prefix: string): Promise<number>;
}
