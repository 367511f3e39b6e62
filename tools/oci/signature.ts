/**
 * Signature version 1 of Oracle's API (draft-cavage-http-signatures-08, RSA-SHA256):
 * https://docs.oracle.com/iaas/Content/API/Concepts/signingrequests.htm
 */
import { createHash, sign } from 'node:crypto';
import type { OciLogin } from './config.ts';

/** Headers of a signed request. A body is JSON. */
export function signedHeaders(
  login: Pick<OciLogin, 'keyId' | 'key'>,
  request: { method: string; url: URL; body?: string | undefined; date?: Date },
): Record<string, string> {
  const { method, url, body } = request;
  const signed: [string, string][] = [
    ['date', (request.date ?? new Date()).toUTCString()],
    ['(request-target)', `${method.toLowerCase()} ${url.pathname}${url.search}`],
    ['host', url.host],
  ];
  if (body !== undefined) {
    signed.push(
      ['content-length', String(Buffer.byteLength(body))],
      ['content-type', 'application/json'],
      ['x-content-sha256', createHash('sha256').update(body).digest('base64')],
    );
  }
  const text = signed.map(([name, value]) => `${name}: ${value}`).join('\n');
  const signature = sign('sha256', Buffer.from(text), login.key).toString('base64');
  const names = signed.map(([name]) => name).join(' ');
  return {
    ...Object.fromEntries(signed.filter(([name]) => name !== '(request-target)' && name !== 'host')),
    authorization: `Signature version="1",headers="${names}",keyId="${login.keyId}",algorithm="rsa-sha256",signature="${signature}"`,
  };
}
