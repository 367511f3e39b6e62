/** What goes wrong between us and Google's services, told with a code. */
import { type ErrorCode, PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';

/** An error with the status it came with, so that callers can tell a missing object from a conflict. */
export class GcpError extends PortError {
  /** HTTP status, or 0 when no answer came. */
  readonly status: number;
  /** Google's word for the cause, such as `quotaExceeded`; empty when there is none. */
  readonly reason: string;

  constructor(
    code: ErrorCode,
    message: string,
    options: { status: number; reason: string; temporary: boolean; hint?: string; cause: unknown },
  ) {
    super(code, message, options);
    this.status = options.status;
    this.reason = options.reason;
  }
}

/** The parts of an error of Google's libraries that are looked at. */
interface LibraryError {
  message?: string;
  /** A status (storage), or a word such as `ECONNRESET`. */
  code?: unknown;
  status?: unknown;
  errors?: { reason?: string; message?: string }[];
  response?: { status?: number; data?: unknown };
}

/** https://docs.cloud.google.com/storage/docs/retry-strategy: what is worth another attempt. */
const TEMPORARY_STATUS = new Set([408, 429, 500, 502, 503, 504]);
const THROTTLED = /rateLimitExceeded|RATE_LIMIT|backendError|internalError/;
const QUOTA = /quota|QUOTA|LIMIT_EXCEEDED|billing/;
/** Words of google-auth-library and of the token services of Google (RFC 6749, 5.2; RFC 8693, 2.2.2). */
const NO_LOGIN =
  /default credentials|invalid_grant|invalid_client|invalid_target|unauthorized_client|invalid_rapt|client_email|private key|impersonat|does not exist, or it is not a file|UNAUTHENTICATED/i;

const LOGIN_HINT =
  'log in with `gcloud auth application-default login`, or name a key file in GOOGLE_APPLICATION_CREDENTIALS';

/** Text of an answer as a person can use it; never the answer itself, which may hold tokens. */
function told(error: LibraryError): { reason: string; message: string } {
  const data = error.response?.data;
  const body = typeof data === 'object' && data !== null && 'error' in data ? data.error : undefined;
  const inner = typeof body === 'object' && body !== null ? (body as LibraryError) : undefined;
  const [first] = inner?.errors ?? error.errors ?? [];
  const message = inner?.message ?? first?.message ?? error.message ?? '';
  return {
    reason: printable(first?.reason ?? '').slice(0, 60),
    message: printable(message.replace(/\s+/g, ' ').replace(/ya29\.[\w.-]+/g, '[token]')).slice(0, 300),
  };
}

function statusOf(error: LibraryError): number {
  for (const value of [error.response?.status, error.status, error.code]) {
    const number = Number(value);
    if (Number.isInteger(number) && number >= 100 && number < 600) return number;
  }
  return 0;
}

/** Words a status stands for: CLOUD_LOGIN, CLOUD_REFUSED, CLOUD_CONFLICT, CLOUD. */
function codeOf(status: number, isLogin: boolean): ErrorCode {
  if (isLogin) return 'CLOUD_LOGIN';
  if (status === 403 || status === 413) return 'CLOUD_REFUSED';
  return status === 409 || status === 412 ? 'CLOUD_CONFLICT' : 'CLOUD';
}

/** An error of a library of Google's as one of ours. `what` was being done: `image shop01`. */
export function gcpError(error: unknown, what: string, signal?: AbortSignal): PortError {
  if (signal?.aborted) return new PortError('INTERRUPTED', 'interrupted', { cause: error });
  if (error instanceof PortError) return error;
  const known = (typeof error === 'object' && error !== null ? error : {}) as LibraryError;
  const status = statusOf(known);
  const { reason, message } = told(known);
  const isLogin = status === 401 || (status !== 403 && NO_LOGIN.test(`${known.message ?? ''} ${message}`));
  const isThrottled = status === 403 && THROTTLED.test(reason);
  const isSilent = status === 0 && typeof known.code === 'string' && /^E[A-Z]+$|^UND_ERR/.test(known.code);
  const hint = isLogin
    ? LOGIN_HINT
    : QUOTA.test(`${reason} ${message}`)
      ? 'ask for a larger quota of the project, or remove older images and objects'
      : undefined;
  return new GcpError(isThrottled ? 'CLOUD' : codeOf(status, isLogin), `${what}: ${message || 'no answer'}`, {
    status,
    reason,
    temporary: !isLogin && (TEMPORARY_STATUS.has(status) || isThrottled || isSilent),
    cause: error,
    ...(hint === undefined ? {} : { hint }),
  });
}
