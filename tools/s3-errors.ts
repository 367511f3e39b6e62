/** An S3 gate and what goes wrong between it and us, told with a code. */
import { PortError } from '../core/errors.ts';
import { printable } from '../core/text.ts';

/** Where and as whom. */
export interface S3Place {
  /** https, or http on this machine. */
  endpoint: string;
  region: string;
  bucket: string;
  /** The bucket in the path instead of the host name. */
  pathStyle: boolean;
  /** Amazon's usual ways (environment, profile) when absent. */
  credentials?: { accessKeyId: string; secretAccessKey: string; sessionToken?: string };
  /** What the user can do when the keys are missing or not accepted. */
  loginHint: string;
}

/** The parts of an SDK error that are looked at. */
interface SdkError {
  name?: string;
  message?: string;
  code?: string;
  $metadata?: { httpStatusCode?: number };
}

const NO_ACCESS =
  /Credential|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|RequestTimeTooSkewed|TokenRefresh/;

/** An error of the SDK as one of ours. `what` was being done. */
export function s3Error(error: unknown, what: string, place: S3Place, signal?: AbortSignal): PortError {
  if (signal?.aborted) return new PortError('INTERRUPTED', 'interrupted', { cause: error });
  if (error instanceof PortError) return error;
  const { name = '', message = '', code = '', $metadata } = (error ?? {}) as SdkError;
  const status = $metadata?.httpStatusCode ?? 0;
  const told = `${what}: ${printable(message || name).slice(0, 300)}`;
  if (NO_ACCESS.test(name) || status === 401)
    return new PortError('CLOUD_LOGIN', told, { cause: error, hint: place.loginHint });
  if (name === 'NoSuchBucket')
    return new PortError('CLOUD_REFUSED', `there is no bucket ${place.bucket}`, { cause: error });
  if (status === 403 || /Quota|InsufficientStorage/.test(name))
    return new PortError('CLOUD_REFUSED', told, { cause: error });
  const temporary =
    status >= 500 || status === 429 || /^E[A-Z]+$/.test(code) || /Timeout|^E[A-Z]+$/.test(name);
  return new PortError('CLOUD', told, { cause: error, temporary });
}

/** True for an answer that there is no such object. */
export const isMissing = (error: unknown): boolean => {
  const { name = '', $metadata } = (error ?? {}) as SdkError;
  return $metadata?.httpStatusCode === 404 && name !== 'NoSuchBucket';
};
