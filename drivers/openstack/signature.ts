/**
 * Signature of an image as Nova and Glance verify it (openstack/cursive:cursive/signature_utils.py): over the bytes of
 * the file, RSA-PSS with MGF1 of the same hash and the longest salt, or ECDSA in DER.
 */
import {
  constants,
  createPrivateKey,
  createPublicKey,
  createSign,
  createVerify,
  type KeyObject,
} from 'node:crypto';
import * as fs from 'node:fs/promises';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';

/** The four properties. */
export interface SignatureProperties {
  img_signature: string;
  img_signature_hash_method: string;
  img_signature_key_type: string;
  img_signature_certificate_uuid: string;
}

/** Curves the verifier knows, by OpenSSL's names; P-256 is not one of them. */
const CURVES: Readonly<Record<string, string>> = {
  secp384r1: 'ECC_SECP384R1',
  secp521r1: 'ECC_SECP521R1',
};
const HASH = { method: 'SHA-256', node: 'sha256' };
const SHORTEST_RSA_BITS = 2048;
const READ_BYTES = 1024 * 1024;
/** The id of a certificate in Barbican. */
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** A key that can sign an image. */
export interface SigningKey {
  key: KeyObject;
  keyType: string;
  certificateId: string;
}

/** Reads the key and checks that the cloud could verify with it. Throws CONFIG or USAGE; never shows the key. */
export async function readSigningKey(file: string, certificateId: string | undefined): Promise<SigningKey> {
  if (certificateId === undefined || !UUID.test(certificateId)) {
    throw new PortError('USAGE', 'an image signature needs the id of the certificate in the key manager', {
      hint: 'store the certificate with `openstack secret store` and name its UUID',
    });
  }
  let pem: string;
  try {
    pem = await fs.readFile(file, 'utf8');
  } catch (error) {
    throw new PortError('CONFIG', `cannot read the signing key ${printable(file)}`, { cause: error });
  }
  if (/ENCRYPTED/.test(pem)) {
    throw new PortError('CONFIG', `the signing key ${printable(file)} has a passphrase`, {
      hint: 'passphrases are not supported; keep an unencrypted copy on a protected file system',
    });
  }
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch {
    // OpenSSL's message may quote what it read.
    throw new PortError('CONFIG', `${printable(file)} is no private key in PEM form`);
  }
  return { key, keyType: keyTypeOf(key, file), certificateId };
}

function keyTypeOf(key: KeyObject, file: string): string {
  const details = key.asymmetricKeyDetails;
  if (key.asymmetricKeyType === 'rsa') {
    if ((details?.modulusLength ?? 0) >= SHORTEST_RSA_BITS) return 'RSA-PSS';
    throw new PortError(
      'CONFIG',
      `the signing key ${printable(file)} is shorter than ${SHORTEST_RSA_BITS} bits`,
    );
  }
  const curve = details?.namedCurve ?? '';
  if (key.asymmetricKeyType === 'ec' && Object.hasOwn(CURVES, curve)) return CURVES[curve] as string;
  throw new PortError(
    'CONFIG',
    `OpenStack cannot verify signatures of the key ${printable(file)} (${key.asymmetricKeyType ?? 'unknown kind'} ${curve})`,
    { hint: 'use an RSA key, or an elliptic curve key on secp384r1 or secp521r1' },
  );
}

/** Signs a file, reading it once, and verifies the result with the public half. Throws BUG when that fails. */
export async function signFile(
  file: string,
  { key, keyType, certificateId }: SigningKey,
  options: { signal?: AbortSignal | undefined; onBytes?: (doneBytes: number) => void } = {},
): Promise<SignatureProperties> {
  const signer = createSign(HASH.node);
  const verifier = createVerify(HASH.node);
  const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
  const handle = await fs.open(file, 'r');
  try {
    for (let doneBytes = 0; ; ) {
      options.signal?.throwIfAborted();
      const { bytesRead } = await handle.read(buffer, 0, READ_BYTES, null);
      if (bytesRead === 0) break;
      const chunk = buffer.subarray(0, bytesRead);
      signer.update(chunk);
      verifier.update(chunk);
      doneBytes += bytesRead;
      options.onBytes?.(doneBytes);
    }
  } finally {
    await handle.close();
  }
  const padding =
    keyType === 'RSA-PSS'
      ? { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_MAX_SIGN }
      : { dsaEncoding: 'der' as const };
  const signature = signer.sign({ key, ...padding });
  if (!verifier.verify({ key: createPublicKey(key), ...padding }, signature)) {
    throw new PortError('BUG', `the signature of ${printable(file)} does not verify`);
  }
  return {
    img_signature: signature.toString('base64'),
    img_signature_hash_method: HASH.method,
    img_signature_key_type: keyType,
    img_signature_certificate_uuid: certificateId,
  };
}
