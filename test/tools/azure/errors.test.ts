import { expect, test } from 'vitest';
import { addressRange } from '../../../tools/azure/container-sas.ts';
import { blobAccess } from '../../../tools/azure/credentials.ts';
import { blobServiceUrl, serviceUrl } from '../../../tools/azure/endpoint.ts';
import { azureError } from '../../../tools/azure/errors.ts';

const failure = (fields: Record<string, unknown>) => Object.assign(new Error('no'), fields);

test.each([
  [{ statusCode: 503, code: 'ServerBusy' }, 'CLOUD', true],
  [{ statusCode: 429, code: 'TooManyRequests' }, 'CLOUD', true],
  [{ statusCode: 500, code: 'InternalError' }, 'CLOUD', true],
  [{ code: 'ECONNRESET' }, 'CLOUD', true],
  [{ statusCode: 401, code: 'InvalidAuthenticationToken' }, 'CLOUD_LOGIN', false],
  [{ statusCode: 403, code: 'AuthenticationFailed' }, 'CLOUD_LOGIN', false],
  [{ name: 'AggregateAuthenticationError' }, 'CLOUD_LOGIN', false],
  [{ statusCode: 403, code: 'AuthorizationPermissionMismatch' }, 'CLOUD_REFUSED', false],
  [{ statusCode: 404, code: 'ResourceGroupNotFound' }, 'CLOUD_REFUSED', false],
  [{ statusCode: 409, code: 'QuotaExceeded' }, 'CLOUD_REFUSED', false],
  [{ statusCode: 409, code: 'BlobAlreadyExists' }, 'CLOUD_CONFLICT', false],
  [{ statusCode: 412, code: 'LeaseIdMissing' }, 'CLOUD_CONFLICT', false],
  [{ statusCode: 400, code: 'InvalidHeaderValue' }, 'CLOUD', false],
])('%j is %s', (fields, code, temporary) => {
  expect(azureError(failure(fields), 'x')).toMatchObject({ code, temporary });
});

test('signatures, escapes and long texts do not come along', () => {
  const url = 'https://a.blob.core.windows.net/b?sv=1&sig=SECRET%3D&se=2';
  const { message } = azureError(
    failure({ statusCode: 403, message: `\u001b[31m${url} ${'x'.repeat(5000)}` }),
    'doing it',
  );
  expect(message).not.toContain('SECRET');
  expect(message).not.toContain('\u001b');
  expect(message.length).toBeLessThan(400);
});

test('only a signal of ours is an interruption', () => {
  const abort = failure({ name: 'AbortError' });
  expect(azureError(abort, 'x', AbortSignal.abort())).toMatchObject({ code: 'INTERRUPTED' });
  expect(azureError(abort, 'x', new AbortController().signal)).toMatchObject({
    code: 'CLOUD',
    temporary: true,
  });
});

test('addresses: https, or this machine; no credentials in them', () => {
  expect(blobServiceUrl('shop')).toBe('https://shop.blob.core.windows.net');
  expect(blobServiceUrl('shop', 'http://127.0.0.1:10000/shop/')).toBe('http://127.0.0.1:10000/shop');
  for (const bad of [
    'http://shop.example',
    'https://u:p@shop.example',
    'https://shop.example/?sig=x',
    'ftp://x',
    'x',
  ])
    expect(() => serviceUrl(bad, 'it')).toThrow(expect.objectContaining({ code: 'CONFIG' }));
  expect(() => blobServiceUrl('No_Account')).toThrow(expect.objectContaining({ code: 'CONFIG' }));
});

test('a connection string counts for its own account alone', () => {
  const login = () => ({ getToken: async () => null });
  const key = Buffer.from('key').toString('base64');
  const env = {
    AZURE_STORAGE_CONNECTION_STRING: `AccountName=shop;AccountKey=${key};BlobEndpoint=http://x/`,
  };
  expect(blobAccess('shop', login, env).kind).toBe('key');
  expect(blobAccess('other', login, env).kind).toBe('login');
  expect(blobAccess('other', login, { ...env, AZURE_STORAGE_SAS_TOKEN: '?sv=1&sig=2' })).toMatchObject({
    kind: 'sas',
    query: '?sv=1&sig=2',
  });
  expect(() => blobAccess('other', login, { AZURE_STORAGE_KEY: 'a b' })).toThrow(
    expect.objectContaining({ code: 'CONFIG' }),
  );
});

test('ranges of addresses as a SAS has them', () => {
  expect(addressRange('10.1.2.3')).toEqual({ start: '10.1.2.3' });
  expect(addressRange('10.1.2.3/24')).toEqual({ start: '10.1.2.0', end: '10.1.2.255' });
  expect(addressRange('200.0.0.0/7')).toEqual({ start: '200.0.0.0', end: '201.255.255.255' });
  for (const bad of ['::1', '10.1.2', '10.1.2.300', '10.0.0.0/33', ''])
    expect(() => addressRange(bad)).toThrow(expect.objectContaining({ code: 'USAGE' }));
});
