/** Words of fetching: what an image's server told about it, and how its bytes are asked for. */
import type { Readable } from 'node:stream';

/** A digest the content must have. */
export interface Digest {
  algorithm: 'sha256' | 'sha512';
  /** Lower case. */
  hex: string;
}

/** What a server says about the content; plain data without secrets. */
export interface ContentFacts {
  /** Undefined when the server does not tell; then the free space is the limit. */
  sizeBytes: number | undefined;
  /** Names this very content: a strong ETag, a Last-Modified or, for Glance, its hash. Undefined: nothing can tell a change. */
  validator: string | undefined;
}

/** Content that began to arrive. */
export interface OpenedContent {
  /** Offset of the first byte of `body`: the one asked for, or 0 when the server starts again. */
  fromBytes: number;
  facts: ContentFacts;
  body: Readable;
}

/** Where the bytes come from. One call is one attempt: the transfer tries again. */
export interface ImageOrigin {
  /**
   * Asks for the content from an offset on, as long as it is still that of `facts`. Throws SOURCE_REMOTE (temporary when trying
   * again may heal it), INTERRUPTED.
   */
  open(fromBytes: number, facts: ContentFacts, signal: AbortSignal | undefined): Promise<OpenedContent>;
  close(): Promise<void>;
}

/** An image that can be fetched: access is proven, nothing was downloaded. */
export interface FetchPlan {
  kind: 'http' | 'glance';
  /** Printable, without the query of a URL, which may be a signature. */
  name: string;
  /** Tells one source from another in a state file; a hash, because signed URLs are secrets. */
  identity: string;
  facts: ContentFacts;
  acceptsRanges: boolean;
  /** Digests the content must have: the operator's and Glance's own. */
  digests: Digest[];
  /** Glance's `disk_format`: a hint that must agree with what the header checks find. */
  diskFormat: string | undefined;
  /** For the operator, such as a missing checksum. */
  warnings: string[];
  origin: ImageOrigin;
}
