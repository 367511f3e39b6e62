/** What goes wrong between us and EBS, told with a code. */
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';

/** Longest text of the service that is passed on. */
const MOST_TEXT = 300;
/** Names of errors of the SDK's credential chain and of the answers AWS gives to a wrong or old signature. */
const NO_ACCESS =
  /Credential|TokenProvider|AccessDenied|UnrecognizedClient|ExpiredToken|RequestExpired|ClientTokenId|Signature|AuthFailure|AuthenticationToken|OptInRequired/;
const THROTTLED = /Throttl|TooManyRequests|LimitExceeded|SlowDown/;

/** The parts of an SDK error that are looked at. */
interface SdkError {
  name?: string;
  message?: string;
  /** Of a ResourceNotFound, Validation, … exception: a word for the cause. */
  Reason?: string;
  $metadata?: { httpStatusCode?: number };
}

/** An answer that EBS does not give. */
export function nonsense(name: string, what: string): PortError {
  return new PortError('SOURCE_REMOTE', `${name}: ${what}`, {
    hint: 'is AWS_ENDPOINT_URL or AWS_ENDPOINT_URL_EBS set to something that is not EBS?',
  });
}

/** What is said of an error the SDK gave up with. */
export function ebsError(error: unknown, name: string): PortError {
  if (error instanceof PortError) return error;
  const { name: kind = '', message = '', Reason, $metadata } = error as SdkError;
  const status = $metadata?.httpStatusCode;
  const said = [kind, Reason, message].filter((word) => word !== undefined && word !== '').join(': ');
  const text = `${name}: ${printable(said).slice(0, MOST_TEXT)}`;
  const failed = (hint: string, temporary = false) =>
    new PortError('SOURCE_REMOTE', text, { cause: error, hint, temporary });
  if (kind === 'ResourceNotFoundException' || status === 404)
    return failed(
      'check region and snapshot id, and that the snapshot belongs to or is shared with the account',
    );
  // a throttled account may be told so with 403, so this comes first
  if (THROTTLED.test(kind) || status === 429)
    return failed('the account asks EBS for too much at once; run it again later', true);
  if (NO_ACCESS.test(kind) || status === 401 || status === 403)
    return failed(
      'give AWS credentials that are valid now and may ebs:ListSnapshotBlocks and ebs:GetSnapshotBlock, and kms:Decrypt for an encrypted snapshot',
    );
  if (kind === 'ValidationException') return failed('is the snapshot complete? A pending one cannot be read');
  if (status === undefined || status >= 500)
    return failed('check the region and the network; run it again later', true);
  return failed('EBS refused to give the snapshot');
}

/** Whether EBS refused what a request held: with a block's token, that it is no longer valid. */
export function isInvalid(error: unknown): boolean {
  const cause = error instanceof PortError ? (error.cause as SdkError | undefined) : undefined;
  return cause?.name === 'ValidationException';
}
