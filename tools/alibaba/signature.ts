/**
 * Signature version 3 of Alibaba's APIs (ACS3-HMAC-SHA256) for calls whose parameters are all in the query:
 * https://www.alibabacloud.com/help/en/sdk/product-overview/v3-request-structure-and-signature
 */
import { createHash, createHmac, randomUUID } from 'node:crypto';
import type { AlibabaKey } from './credentials.ts';

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

/** Percent encoding of RFC 3986: all but letters, digits and `-_.~`. */
export function encode(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

/** The query as it is signed and sent. */
export function canonicalQuery(parameters: Readonly<Record<string, string>>): string {
  const pairs = Object.entries(parameters).map(([name, value]) => [encode(name), encode(value)] as const);
  return pairs
    .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
    .map(([name, value]) => `${name}=${value}`)
    .join('&');
}

/** Headers of a signed POST without a body. */
export function signedHeaders(
  key: AlibabaKey,
  request: {
    host: string;
    action: string;
    version: string;
    parameters: Readonly<Record<string, string>>;
    date?: Date;
    nonce?: string;
  },
): Record<string, string> {
  const body = sha256('');
  const headers: Record<string, string> = {
    host: request.host,
    'x-acs-action': request.action,
    'x-acs-content-sha256': body,
    'x-acs-date': (request.date ?? new Date()).toISOString().replace(/\.\d+Z$/, 'Z'),
    'x-acs-signature-nonce': request.nonce ?? randomUUID().replaceAll('-', ''),
    'x-acs-version': request.version,
    ...(key.token === undefined ? {} : { 'x-acs-security-token': key.token }),
  };
  const names = Object.keys(headers).sort();
  const canonical = [
    'POST',
    '/',
    canonicalQuery(request.parameters),
    ...names.map((name) => `${name}:${headers[name]?.trim()}`),
    '',
    names.join(';'),
    body,
  ].join('\n');
  const signature = createHmac('sha256', key.secret)
    .update(`ACS3-HMAC-SHA256\n${sha256(canonical)}`)
    .digest('hex');
  const { host: _host, ...sent } = headers;
  return {
    ...sent,
    authorization: `ACS3-HMAC-SHA256 Credential=${key.id},SignedHeaders=${names.join(';')},Signature=${signature}`,
  };
}
