/** `data mint` and `data revoke`: who may read a data set from where, and for how long. */
import type { Command } from 'commander';
import { DAY_MS, HOUR_MS, MINUTE_MS, parseDuration } from '../../core/durations.ts';
import { PortError } from '../../core/errors.ts';
import { writeFileAtomic } from '../../core/files.ts';
import { printable } from '../../core/text.ts';
import { type CredentialChoice, type Minted, mint } from '../../pipeline/data/mint.ts';
import { revokeCredential, revokeUrls } from '../../pipeline/data/revoke.ts';
import { checkIpRange, cloudConfig, pointerProperties } from '../../pipeline/data/user-data.ts';
import { out, outJson, say } from '../output.ts';
import type { Interruption } from '../signals.ts';
import { credentialSecret, onStore, openCloud, type StoreFlags, withStoreFlags } from './flags.ts';

const EXPIRES = { what: '--expires', minMs: MINUTE_MS, maxMs: 365 * DAY_MS };
const DEFAULT_LIFE_MS = 24 * HOUR_MS;

interface MintFlags extends StoreFlags {
  expires?: string;
  ip?: string;
  out?: string;
  userData?: string;
  pointer?: boolean;
  applicationCredential?: string;
  secretFile?: string;
  allowUnrestricted?: boolean;
}

async function choiceOf(flags: MintFlags): Promise<CredentialChoice | undefined> {
  const id = flags.applicationCredential;
  if (id === undefined) {
    if (flags.allowUnrestricted === true || flags.secretFile !== undefined) {
      throw new PortError(
        'USAGE',
        '--allow-unrestricted and --secret-file go with --application-credential ID',
      );
    }
    return undefined;
  }
  if (id === 'new') return { kind: 'new' };
  const secret = await credentialSecret(flags.secretFile);
  if (secret === undefined) {
    throw new PortError('USAGE', `the secret of the application credential ${printable(id)} is not known`, {
      hint: 'set OS_APPLICATION_CREDENTIAL_SECRET, or name a file with --secret-file',
    });
  }
  return { kind: 'existing', id, secret, allowUnrestricted: flags.allowUnrestricted === true };
}

/** Writes the document where the flags want it; stdout gets it when no file does. */
async function handOver(minted: Minted, flags: MintFlags, ids: readonly string[]): Promise<void> {
  const { document, expires, pointerUrl, credentialId } = minted;
  // made before anything is written: it may refuse
  const userData = flags.userData === undefined ? undefined : cloudConfig(document);
  if (flags.out !== undefined) await writeFileAtomic(flags.out, `${JSON.stringify(document, null, 2)}\n`);
  if (flags.userData !== undefined && userData !== undefined) await writeFileAtomic(flags.userData, userData);
  const properties = pointerUrl === undefined ? undefined : pointerProperties(pointerUrl);
  const isHandedOver = flags.out !== undefined || userData !== undefined || properties !== undefined;
  if (!isHandedOver) {
    outJson(document);
  } else if (flags.json === true) {
    outJson({
      ids,
      expires: expires ?? null,
      ...(flags.out === undefined ? {} : { out: flags.out }),
      ...(flags.userData === undefined ? {} : { userData: flags.userData }),
      ...(properties === undefined ? {} : { properties }),
      ...(credentialId === undefined ? {} : { applicationCredential: credentialId }),
    });
  } else {
    if (flags.out !== undefined) out(`provision document: ${printable(flags.out)}`);
    if (flags.userData !== undefined) out(`user data: ${printable(flags.userData)}`);
    for (const [key, value] of Object.entries(properties ?? {})) out(`${key}=${value}`);
  }
  say(`${ids.join(', ')}: readable until ${expires ?? 'the credential is deleted'}`);
  if (credentialId !== undefined)
    say(`application credential ${credentialId}; data revoke --application-credential ends it`);
  if (properties !== undefined)
    say('give each line to the instance: openstack server create --property LINE …');
}

async function runMint(ids: readonly string[], flags: MintFlags, interruption: Interruption): Promise<void> {
  const lifeMs = flags.expires === undefined ? DEFAULT_LIFE_MS : parseDuration(flags.expires, EXPIRES);
  const ipRange = flags.ip === undefined ? undefined : checkIpRange(flags.ip);
  const credential = await choiceOf(flags);
  const unique = [...new Set(ids)];
  const minted = await onStore(flags, interruption.signal, (store) =>
    mint(store, {
      ids: unique,
      lifeMs,
      ipRange,
      pointer: flags.pointer === true,
      ...(credential === undefined ? {} : { credential }),
      openSession: () => openCloud(flags, interruption),
      signal: interruption.signal,
    }),
  );
  for (const warning of minted.warnings) say(`warning: ${printable(warning)}`);
  await handOver(minted, flags, unique);
}

interface RevokeFlags extends StoreFlags {
  applicationCredential?: string;
  secretFile?: string;
}

async function revoke(id: string | undefined, flags: RevokeFlags, interruption: Interruption): Promise<void> {
  const credential = flags.applicationCredential;
  if ((id === undefined) === (credential === undefined)) {
    throw new PortError(
      'USAGE',
      'name one data set, or an application credential with --application-credential',
      {
        hint: 'signed URLs and application credentials are revoked one by one',
      },
    );
  }
  if (id !== undefined) {
    const { removedDocuments } = await onStore(flags, interruption.signal, (store) =>
      revokeUrls(store, id, interruption.signal),
    );
    if (flags.json === true) outJson({ revoked: id, removedDocuments });
    else out(`revoked: every URL of ${id} made so far is refused (tried with one of them)`);
  } else if (credential !== undefined) {
    const secret = await credentialSecret(flags.secretFile);
    const session = await openCloud(flags, interruption);
    try {
      const { proof } = await revokeCredential(session, credential, { secret, signal: interruption.signal });
      if (flags.json === true) outJson({ revoked: credential, proof });
      else out(`revoked: the application credential ${credential} is deleted; ${proof}`);
    } finally {
      await session.close();
    }
  }
  say('instances that have not fetched their data yet need a new document: port-image data mint');
}

/** Adds the subcommands that give and take access. */
export function addAccess(data: Command, interruption: Interruption): void {
  withStoreFlags(data.command('mint'))
    .description('make the document with which an instance reads its data sets, and nothing else')
    .argument('<id...>', 'data sets of the instance')
    .option('--expires <duration>', 'life of the URLs: 30m, 24h, 7d, at most 365d (default: 24h)')
    .option('--ip <range>', 'addresses the URLs work from: 10.1.2.3 or 10.1.2.0/24')
    .option('--out <file>', 'write the document (mode 0600) instead of printing it')
    .option('--user-data <file>', 'write a #cloud-config (mode 0600) that brings the document along')
    .option('--pointer', 'keep the document in the store and print the instance properties that point to it')
    .option('--application-credential <id>', 'instead of signed URLs: `new`, or an existing credential')
    .option('--secret-file <file>', 'its secret (default: OS_APPLICATION_CREDENTIAL_SECRET)')
    .option('--allow-unrestricted', 'take an application credential without access rules')
    .addHelpText(
      'after',
      '\nExamples:\n  port-image data mint shop01-srv-0123456789 --store swift:data --os-cloud mycloud --user-data user-data.yaml' +
        '\n  port-image data mint shop01-srv-0123456789 --expires 2h --ip 10.1.2.0/24 --out provision.json',
    )
    .action((ids: string[], flags: MintFlags) => runMint(ids, flags, interruption));
  withStoreFlags(data.command('revoke'))
    .description('make every URL of a data set worthless, or delete an application credential; proves it')
    .argument('[id]', 'data set')
    .option('--application-credential <id>', 'delete this application credential instead')
    .option('--secret-file <file>', 'its secret, to prove that it gives no token any more')
    .addHelpText('after', '\nExample:\n  port-image data revoke shop01-srv-0123456789 --store swift:data')
    .action((id: string | undefined, flags: RevokeFlags) => revoke(id, flags, interruption));
}
