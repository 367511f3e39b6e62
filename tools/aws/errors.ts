/** What goes wrong between us and AWS, told with a code. */
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';

/** Longest text of the service that is passed on. */
const MOST_TEXT = 300;
/** Errors of the SDK's credential chain, and what AWS answers to a wrong or old signature. */
const NO_LOGIN =
  /Credential|TokenProvider|UnrecognizedClient|ExpiredToken|RequestExpired|ClientTokenId|Signature|AuthFailure|InvalidToken|SSOToken/;
const NOT_ALLOWED = /UnauthorizedOperation|AccessDenied|OptInRequired|Blocked/;
const QUOTA = /LimitExceeded|Quota|InsufficientCapacity/;
const THROTTLED = /Throttl|TooManyRequests|SlowDown|RequestLimitExceeded/;
const CONFLICT = /Duplicate|ConflictException|AlreadyExists|IdempotentParameterMismatch/;

/** The parts of an SDK error that are looked at. */
interface SdkError {
  name?: string;
  code?: string;
  message?: string;
  $metadata?: { httpStatusCode?: number };
}

/** Name of an SDK error, such as `InvalidAMIID.NotFound`; empty when it has none. */
export function awsErrorName(error: unknown): string {
  const cause = error instanceof PortError ? error.cause : error;
  return (cause as SdkError | undefined)?.name ?? '';
}

/** An error the SDK gave up with, as one of ours. `what` was being done. */
export function awsError(error: unknown, what: string, signal?: AbortSignal): PortError {
  if (signal?.aborted) return new PortError('INTERRUPTED', 'interrupted', { cause: error });
  if (error instanceof PortError) return error;
  const { name = '', code = '', message = '', $metadata } = (error ?? {}) as SdkError;
  const status = $metadata?.httpStatusCode;
  const told = `${what}: ${printable([name, message].filter((t) => t !== '').join(': ')).slice(0, MOST_TEXT)}`;
  const fail = (
    kind: 'CLOUD' | 'CLOUD_LOGIN' | 'CLOUD_REFUSED' | 'CLOUD_CONFLICT',
    hint?: string,
    temporary = false,
  ) => new PortError(kind, told, { cause: error, temporary, ...(hint === undefined ? {} : { hint }) });
  // A throttled account may be told so with 403 or by a limit's name, so this comes first.
  if (THROTTLED.test(name) || status === 429)
    return fail('CLOUD', 'the account asks for too much at once; resume the job later', true);
  if (NO_LOGIN.test(name) || status === 401) {
    return fail(
      'CLOUD_LOGIN',
      'give AWS credentials that are valid now (environment, profile or role), then resume the job',
    );
  }
  if (NOT_ALLOWED.test(name))
    return fail('CLOUD_REFUSED', 'docs/platforms/aws.md lists the permissions an upload needs');
  if (QUOTA.test(name)) return fail('CLOUD_REFUSED', 'remove older snapshots or images, or ask AWS for more');
  if (CONFLICT.test(name)) return fail('CLOUD_CONFLICT');
  if (status === 403) return fail('CLOUD_REFUSED');
  const unreachable = status === undefined && (/^E[A-Z]+$/.test(code) || /Timeout|Network/.test(name));
  if (unreachable || (status !== undefined && status >= 500))
    return fail('CLOUD', 'check the region and the network, then resume the job', true);
  return fail('CLOUD');
}
