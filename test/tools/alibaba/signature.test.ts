import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { readAlibabaKey } from '../../../tools/alibaba/credentials.ts';
import { canonicalQuery, encode, signedHeaders } from '../../../tools/alibaba/signature.ts';

// "Fixed parameters" example of the page that defines the signature (see signature.ts).
test('the example of the documentation', () => {
  const headers = signedHeaders(
    { id: 'YourAccessKeyId', secret: 'YourAccessKeySecret' },
    {
      host: 'ecs.cn-shanghai.aliyuncs.com',
      action: 'RunInstances',
      version: '2014-05-26',
      parameters: {
        RegionId: 'cn-shanghai',
        ImageId: 'win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd',
      },
      date: new Date('2023-10-26T10:22:32Z'),
      nonce: '3156853299f313e23d1673dc12e1703d',
    },
  );
  expect(headers.authorization).toBe(
    'ACS3-HMAC-SHA256 Credential=YourAccessKeyId,SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version,Signature=06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0',
  );
});

test('a token is signed with the rest', () => {
  const { authorization = '', ...headers } = signedHeaders(
    { id: 'a', secret: 'b', token: 'c' },
    { host: 'h', action: 'A', version: 'v', parameters: {} },
  );
  expect(headers['x-acs-security-token']).toBe('c');
  expect(authorization).toContain('x-acs-security-token;');
});

test('what is encoded is read back as it was, and holds nothing that is not encoded', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (text) => {
      expect(encode(text)).toMatch(/^[A-Za-z0-9\-_.~%]*$/);
      expect(decodeURIComponent(encode(text))).toBe(text);
      expect(new URLSearchParams(canonicalQuery({ a: text })).get('a')).toBe(text);
    }),
  );
  expect(canonicalQuery({ 'Tag.1.Key': 'b c', 'DiskDeviceMapping.1.Format': '*' })).toBe(
    'DiskDeviceMapping.1.Format=%2A&Tag.1.Key=b%20c',
  );
});

test('keys come from the environment or a profile; a secret is never in a message', async () => {
  const home = mkdtempSync(path.join(tmpdir(), 'port-image-aliyun-'));
  try {
    const key = { ALIBABA_CLOUD_ACCESS_KEY_ID: 'i', ALIBABA_CLOUD_ACCESS_KEY_SECRET: 's' };
    expect(await readAlibabaKey(undefined, { ...key, ALIBABA_CLOUD_SECURITY_TOKEN: 't' })).toEqual({
      id: 'i',
      secret: 's',
      token: 't',
    });
    await expect(readAlibabaKey(undefined, { HOME: home })).rejects.toMatchObject({ code: 'CLOUD_LOGIN' });
    mkdirSync(path.join(home, '.aliyun'));
    const write = (config: unknown) =>
      writeFileSync(path.join(home, '.aliyun/config.json'), JSON.stringify(config));
    write({
      current: 'b',
      profiles: [
        { name: 'a', mode: 'RamRoleArn' },
        { name: 'b', access_key_id: 'x', access_key_secret: 'hidden' },
      ],
    });
    expect(await readAlibabaKey(undefined, { HOME: home })).toEqual({ id: 'x', secret: 'hidden' });
    await expect(readAlibabaKey('a', { HOME: home, ...key })).rejects.toThrow(/RamRoleArn/);
    write({ profiles: [{ name: 3, access_key_secret: 'hidden' }] });
    const error = await readAlibabaKey(undefined, { HOME: home }).catch((e: unknown) => e as Error);
    expect(JSON.stringify([(error as Error).message, String((error as Error).cause)])).not.toContain(
      'hidden',
    );
  } finally {
    rmSync(home, { recursive: true });
  }
});
