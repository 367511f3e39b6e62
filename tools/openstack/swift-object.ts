/** What Swift's objects and answers look like. */
import { HttpError, type HttpResponse } from './http.ts';

/** Header that tells whose container it is. */
export const MARK_HEADER = 'x-container-meta-port-image';
/** Key of signed URLs. */
export const KEY_HEADER = 'x-container-meta-temp-url-key';
/** Second key of signed URLs, for changing them without a gap. */
export const KEY2_HEADER = 'x-container-meta-temp-url-key-2';

/** An object as Swift knows it. */
export interface SwiftObject {
  name: string;
  /** Content of a large object, not of its manifest. */
  bytes: number;
  /** md5 of the content; of a large object the digest over its parts' etags (HEAD), or of its manifest (listing). */
  etag: string;
  modifiedMs?: number;
  /** A static large object: its content is in parts. */
  isLarge: boolean;
}

/** Etag without its quotes. */
export const plainEtag = (etag: string | undefined): string => (etag ?? '').replace(/^(W\/)?"|"$/g, '');

/** The same error, worth another attempt. */
export function asTemporary(error: HttpError): HttpError {
  const { status, retryAfterMs } = error;
  return new HttpError(error.code, error.message, { status, retryAfterMs, temporary: true, cause: error });
}

/** Conditions that pass by themselves on Swift: clocks of two proxies (409), a container not everywhere yet (404). */
export function healing(error: unknown, statuses: readonly number[]): unknown {
  return error instanceof HttpError && statuses.includes(error.status) ? asTemporary(error) : error;
}

/** Gives an answer up with its connection, for one that may be too long to read away. */
export function giveUp(answer: HttpResponse | undefined): void {
  answer?.body.on('error', () => {}).destroy();
}
