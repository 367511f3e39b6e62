import { createPrivateKey, generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { expect, test } from 'vitest';
import { readOciLogin } from '../../../tools/oci/config.ts';
import { signedHeaders } from '../../../tools/oci/signature.ts';

// Key and values of "Test Values" on the page that defines the signature (see signature.ts); the key is of
// draft-cavage-http-signatures and opens nothing.
const KEY = `-----BEGIN RSA PRIVATE KEY-----
MIICXgIBAAKBgQDCFENGw33yGihy92pDjZQhl0C36rPJj+CvfSC8+q28hxA161QF
NUd13wuCTUcq0Qd2qsBe/2hFyc2DCJJg0h1L78+6Z4UMR7EOcpfdUE9Hf3m/hs+F
UR45uBJeDK1HSFHD8bHKD6kv8FPGfJTotc+2xjJwoYi+1hqp1fIekaxsyQIDAQAB
AoGBAJR8ZkCUvx5kzv+utdl7T5MnordT1TvoXXJGXK7ZZ+UuvMNUCdN2QPc4sBiA
QWvLw1cSKt5DsKZ8UETpYPy8pPYnnDEz2dDYiaew9+xEpubyeW2oH4Zx71wqBtOK
kqwrXa/pzdpiucRRjk6vE6YY7EBBs/g7uanVpGibOVAEsqH1AkEA7DkjVH28WDUg
f1nqvfn2Kj6CT7nIcE3jGJsZZ7zlZmBmHFDONMLUrXR/Zm3pR5m0tCmBqa5RK95u
412jt1dPIwJBANJT3v8pnkth48bQo/fKel6uEYyboRtA5/uHuHkZ6FQF7OUkGogc
mSJluOdc5t6hI1VsLn0QZEjQZMEOWr+wKSMCQQCC4kXJEsHAve77oP6HtG/IiEn7
kpyUXRNvFsDE0czpJJBvL/aRFUJxuRK91jhjC68sA7NsKMGg5OXb5I5Jj36xAkEA
gIT7aFOYBFwGgQAQkWNKLvySgKbAZRTeLBacpHMuQdl1DfdntvAyqpAZ0lY0RKmW
G6aFKaqQfOXKCyWoUiVknQJAXrlgySFci/2ueKlIE1QqIiLSZ8V8OlpFLRnb1pzI
7U1yQXnTAEFYM560yJlzUpOb1V4cScGd365tiSMvxLOvTA==
-----END RSA PRIVATE KEY-----
`;
const login = {
  keyId:
    'ocid1.tenancy.oc1..aaaaaaaaba3pv6wkcr4jqae5f15p2b2m2yt2j6rx32uzr4h25vqstifsfdsq/ocid1.user.oc1..aaaaaaaat5nvwcna5j6aqzjcaty5eqbb6qt2jvpkanghtgdaqedqw3rynjq/20:3b:97:13:55:1c:5b:0d:d3:37:d8:50:4e:c5:3a:34',
  key: createPrivateKey(KEY),
};
const HOST = 'https://iaas.us-phoenix-1.oraclecloud.com';
const VOLUME = 'ocid1.volume.oc1.phx.abyhqljrgvttnlx73nmrwfaux7kcvzfs3s66izvxf2h4lgvyndsdsnoiwr5q';
const COMPARTMENT = 'ocid1.compartment.oc1..aaaaaaaam3we6vgnherjq5q2idnccdflvjsnog7mlr6rtdb25gilchfeyjxa';
/** The page's day of the week is wrong for the date, and the signature is of it. */
const DATE = Object.assign(new Date('2014-01-05T21:31:40Z'), {
  toUTCString: () => 'Thu, 05 Jan 2014 21:31:40 GMT',
});

test('a request without a body, of the documentation', () => {
  const url = new URL(
    `${HOST}/20160918/instances?availabilityDomain=Pjwf%3A%20PHX-AD-1&compartmentId=${COMPARTMENT}&displayName=TeamXInstances&volumeId=${VOLUME}`,
  );
  const { authorization } = signedHeaders(login, { method: 'GET', url, date: DATE });
  expect(authorization).toBe(
    `Signature version="1",headers="date (request-target) host",keyId="${login.keyId}",algorithm="rsa-sha256",signature="GBas7grhyrhSKHP6AVIj/h5/Vp8bd/peM79H9Wv8kjoaCivujVXlpbKLjMPeDUhxkFIWtTtLBj3sUzaFj34XE6YZAHc9r2DmE4pMwOAy/kiITcZxa1oHPOeRheC0jP2dqbTll8fmTZVwKZOKHYPtrLJIJQHJjNvxFWeHQjMaR7M="`,
  );
});

test('a request with a body, of the documentation', () => {
  const body = `{
    "compartmentId": "${COMPARTMENT}",
    "instanceId": "ocid1.instance.oc1.phx.abuw4ljrlsfiqw6vzzxb43vyypt4pkodawglp3wqxjqofakrwvou52gb6s5a",
    "volumeId": "${VOLUME}"
}`;
  const url = new URL(`${HOST}/20160918/volumeAttachments`);
  const headers = signedHeaders(login, { method: 'POST', url, body, date: DATE });
  expect(headers['x-content-sha256']).toBe('V9Z20UJTvkvpJ50flBzKE32+6m2zJjweHpDMX/U4Uy0=');
  expect(headers['content-length']).toBe('316');
  expect(headers.authorization).toContain(
    'headers="date (request-target) host content-length content-type x-content-sha256"',
  );
  expect(headers.authorization).toContain(
    'signature="Mje8vIDPlwIHmD/cTDwRxE7HaAvBg16JnVcsuqaNRim23fFPgQfLoOOxae6WqKb1uPjYEl0qIdazWaBy/Ml8DRhqlocMwoSXv0fbukP8J5N80LCmzT/FFBvIvTB91XuXI3hYfP9Zt1l7S6ieVadHUfqBedWH0itrtPJBgKmrWso="',
  );
});

test('profiles inherit; what is missing, of a passphrase or of another kind is told', async () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'port-image-oci-'));
  try {
    const config = path.join(dir, 'config');
    const write = (text: string) => writeFileSync(config, text);
    const read = (profile: string) => readOciLogin(profile, { OCI_CLI_CONFIG_FILE: config });
    await expect(read('DEFAULT')).rejects.toMatchObject({ code: 'CLOUD_LOGIN' });
    writeFileSync(path.join(dir, 'plain.pem'), KEY);
    const { privateKey } = generateKeyPairSync('rsa', {
      modulusLength: 2048,
      publicKeyEncoding: { type: 'spki', format: 'pem' },
      privateKeyEncoding: { type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'x' },
    });
    writeFileSync(path.join(dir, 'locked.pem'), privateKey);
    write(
      `[DEFAULT]\nuser=u\nfingerprint=f\ntenancy=t\nregion=eu-frankfurt-1\nkey_file=${dir}/plain.pem\n# comment\n[OTHER]\nuser = u2\n[LOCKED]\nkey_file=${dir}/locked.pem\n[SESSION]\nsecurity_token_file=x\n`,
    );
    expect(await read('OTHER')).toMatchObject({ keyId: 't/u2/f', region: 'eu-frankfurt-1', tenancy: 't' });
    await expect(read('LOCKED')).rejects.toThrow(/passphrase/);
    await expect(read('SESSION')).rejects.toThrow(/API key/);
    await expect(read('NONE')).rejects.toThrow(/no profile NONE/);
    write('[DEFAULT]\nuser=u\n');
    await expect(read('DEFAULT')).rejects.toThrow(/has no key_file/);
  } finally {
    rmSync(dir, { recursive: true });
  }
});
