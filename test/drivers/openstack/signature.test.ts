import { execFileSync } from 'node:child_process';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { readSigningKey, signFile } from '../../../drivers/openstack/signature.ts';

const CERTIFICATE = '0b5d2c1e-1111-4222-8333-444455556666';
const PYTHON = '/usr/bin/python3';
let dir = '';
beforeAll(() => {
  dir = mkdtempSync(path.join(tmpdir(), 'signature-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

function hasCryptography(): boolean {
  try {
    execFileSync(PYTHON, ['-c', 'import cryptography'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/** As openstack/cursive does it: the verifier by key type, fed piece by piece. */
const VERIFY = `
import base64, sys
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
file, public, kind, signature = sys.argv[1:]
key = serialization.load_pem_public_key(open(public, 'rb').read())
digest = hashes.Hash(hashes.SHA256())
with open(file, 'rb') as f:
    for chunk in iter(lambda: f.read(65536), b''):
        digest.update(chunk)
value = digest.finalize()
raw = base64.b64decode(signature)
if kind == 'RSA-PSS':
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.MAX_LENGTH)
    key.verify(raw, value, pss, utils.Prehashed(hashes.SHA256()))
else:
    key.verify(raw, value, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
`;

const KEYS = {
  rsa2048: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  rsa4096: () => generateKeyPairSync('rsa', { modulusLength: 4096 }),
  secp384r1: () => generateKeyPairSync('ec', { namedCurve: 'secp384r1' }),
  secp521r1: () => generateKeyPairSync('ec', { namedCurve: 'secp521r1' }),
};

test.skipIf(!hasCryptography()).each([
  ['rsa2048', 'RSA-PSS'],
  ['rsa4096', 'RSA-PSS'],
  ['secp384r1', 'ECC_SECP384R1'],
  ['secp521r1', 'ECC_SECP521R1'],
] as const)('the verifier of OpenStack accepts a signature by %s', async (name, kind) => {
  const { privateKey, publicKey } = KEYS[name]();
  const keyFile = path.join(dir, `${name}.pem`);
  const publicFile = path.join(dir, `${name}.pub`);
  writeFileSync(keyFile, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
  writeFileSync(publicFile, publicKey.export({ type: 'spki', format: 'pem' }));
  const file = path.join(dir, `${name}.img`);
  writeFileSync(file, randomBytes(3 * 2 ** 20 + 1));
  const made = await signFile(file, await readSigningKey(keyFile, CERTIFICATE));
  expect(made).toMatchObject({
    img_signature_hash_method: 'SHA-256',
    img_signature_key_type: kind,
    img_signature_certificate_uuid: CERTIFICATE,
  });
  const verify = () =>
    execFileSync(PYTHON, ['-c', VERIFY, file, publicFile, kind, made.img_signature], { stdio: 'pipe' });
  verify();
  writeFileSync(file, 'something else');
  expect(verify).toThrow();
});

test.each([
  ['a passphrase', { cipher: 'aes-256-cbc', passphrase: 'secret' }, 'passphrase'],
  ['PKCS#1', undefined, 'PRIVATE'],
])('a key with %s', async (_, encryption, told) => {
  const { privateKey } = KEYS.rsa2048();
  const file = path.join(dir, 'k.pem');
  if (encryption === undefined) {
    writeFileSync(file, privateKey.export({ type: 'pkcs1', format: 'pem' }));
    expect((await readSigningKey(file, CERTIFICATE)).keyType).toBe('RSA-PSS');
  } else {
    writeFileSync(file, privateKey.export({ type: 'pkcs8', format: 'pem', ...encryption }));
    await expect(readSigningKey(file, CERTIFICATE)).rejects.toMatchObject({
      code: 'CONFIG',
      message: expect.stringContaining(told),
    });
  }
});

test('keys the cloud could not verify are refused, and the file is never quoted', async () => {
  const refused = async (content: string) => {
    const file = path.join(dir, 'bad.pem');
    writeFileSync(file, content);
    return readSigningKey(file, CERTIFICATE).then(
      () => '',
      (error: Error) => error.message,
    );
  };
  const pem = (key: { export(o: { type: 'pkcs8'; format: 'pem' }): string | Buffer }) =>
    String(key.export({ type: 'pkcs8', format: 'pem' }));
  expect(await refused(pem(generateKeyPairSync('ec', { namedCurve: 'prime256v1' }).privateKey))).toContain(
    'cannot verify',
  );
  expect(await refused(pem(generateKeyPairSync('ed25519').privateKey))).toContain('cannot verify');
  expect(await refused(pem(generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey))).toContain(
    'shorter',
  );
  const told = await refused('-----BEGIN PRIVATE KEY-----\nS3CRET\n-----END PRIVATE KEY-----');
  expect(told).toContain('no private key');
  expect(told).not.toContain('S3CRET');
});

test('the certificate must be named', async () => {
  await expect(readSigningKey('/nowhere', undefined)).rejects.toMatchObject({ code: 'USAGE' });
  await expect(readSigningKey('/nowhere', '../x')).rejects.toMatchObject({ code: 'USAGE' });
});
