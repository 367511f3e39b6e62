/** What an Azure service refused, in our words. */
import { type ErrorCode, PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';

/** The part of the SDKs' RestError that counts; two of them make errors of their own class. */
interface ServiceError {
  name?: string;
  message?: string;
  code?: string;
  statusCode?: number;
  details?: unknown;
  cause?: unknown;
}

const MOST_TEXT = 300;
/** Storage: "Common REST API error codes"; compute: OperationNotAllowed carries the quota. */
const LOGIN = new Set([
  'AuthenticationFailed',
  'InvalidAuthenticationInfo',
  'InvalidAuthenticationToken',
  'ExpiredAuthenticationToken',
  'NoAuthenticationInformation',
]);
const CONFLICT = new Set(['BlobAlreadyExists', 'ContainerAlreadyExists', 'ContainerBeingDeleted']);
const SIGNATURE = /([?&](?:sig|se|sp|sv|skoid|sktid)=)[^&\s"'<]+/g;

/** HTTP status of an error of an SDK; undefined when no answer came. */
export function statusOf(error: unknown): number | undefined {
  const { statusCode } = error as ServiceError;
  return typeof statusCode === 'number' ? statusCode : statusOfCause(error);
}

function statusOfCause(error: unknown): number | undefined {
  return error instanceof PortError && error.cause !== undefined ? statusOf(error.cause) : undefined;
}

/** The service's own code, such as `ServerBusy`. */
export function codeOf(error: unknown): string {
  if (error instanceof PortError) return error.cause === undefined ? '' : codeOf(error.cause);
  const { code, details } = error as ServiceError;
  const detail = (details as { errorCode?: string; error?: { code?: string } } | undefined) ?? {};
  return detail.errorCode ?? detail.error?.code ?? code ?? '';
}

function explain(
  error: ServiceError,
  status: number | undefined,
  code: string,
): [ErrorCode, string, boolean] {
  const name = error.name ?? '';
  if (name === 'CredentialUnavailableError' || name === 'AggregateAuthenticationError')
    return [
      'CLOUD_LOGIN',
      'log in with az login, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET (or a certificate)',
      false,
    ];
  const isUnknown = status === 403 && /failed to authenticate/i.test(error.message ?? '');
  if (name === 'AuthenticationError' || LOGIN.has(code) || isUnknown || status === 401)
    return [
      'CLOUD_LOGIN',
      'check key, SAS or login: they must be valid now (and the clock of this machine right)',
      false,
    ];
  if (status === 429 || code === 'ServerBusy' || code === 'OperationTimedOut')
    return ['CLOUD', 'the account asks for too much at once; run it again later', true];
  if (CONFLICT.has(code))
    return ['CLOUD_CONFLICT', 'choose another name, or --set azure.onExists=replace', false];
  if (
    code === 'LeaseIdMissing' ||
    code.startsWith('LeaseAlready') ||
    code === 'LeaseIdMismatchWithBlobOperation'
  )
    return [
      'CLOUD_CONFLICT',
      'somebody else writes to this blob; wait, or break the lease: az storage blob lease break',
      false,
    ];
  if (/quota|limitexceeded|OperationNotAllowed/i.test(code) || code === 'InsufficientAccountPermissions')
    return ['CLOUD_REFUSED', 'ask for a larger quota, or use another account or region', false];
  if (status === 403 || code === 'AuthorizationFailed')
    return ['CLOUD_REFUSED', 'the login lacks a role: docs/platforms/azure.md lists what is needed', false];
  if (status === undefined || status >= 500) return ['CLOUD', 'check the network and run it again', true];
  if (status === 404)
    return ['CLOUD_REFUSED', 'check subscription, resource group, account and container', false];
  return ['CLOUD', 'the service did not accept the request', false];
}

/** An error of an SDK as ours; signatures never come along. `what` says what was being done. */
export function azureError(error: unknown, what: string, signal?: AbortSignal): PortError {
  if (error instanceof PortError) return error;
  // An AbortError without it is how the SDK tells a connection that broke off.
  if (signal?.aborted === true) return new PortError('INTERRUPTED', 'interrupted', { cause: error });
  const service = error as ServiceError;
  const status = statusOf(error);
  const code = codeOf(error);
  const [kind, hint, temporary] = explain(service, status, code);
  const firstLine = (service.message ?? String(error)).split('\n')[0] ?? '';
  const said = [status, code, firstLine].filter((part) => part !== undefined && part !== '').join(' ');
  const text = printable(said).replace(SIGNATURE, '$1…').slice(0, MOST_TEXT);
  return new PortError(kind, `${what}: ${text}`, { hint, temporary, cause: error });
}
