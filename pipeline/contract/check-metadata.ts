/** Claims about what the cloud tells the instance: datasources, credentials, and what must not lie in the image. */
import * as yaml from 'yaml';
import type { GuestFiles } from '../../core/guest.ts';
import { findBlockers } from '../../stages/cloud-init/blockers.ts';
import { type ContractCheck, check, type Evidence, named } from './check.ts';

const MAIN_CONFIG = '/etc/cloud/cloud.cfg';
const CONFIG_DIR = '/etc/cloud/cloud.cfg.d';

/** Where a provision document could lie in an image. */
const STORED_DOCUMENTS = [
  '/etc/port-image/provision.json',
  '/usr/lib/port-image/provision.json',
  '/etc/credstore/port-image.provision',
  '/etc/credstore.encrypted/port-image.provision',
  '/usr/lib/credstore/port-image.provision',
  '/usr/lib/credstore.encrypted/port-image.provision',
];
/** What cloud-init remembers of an earlier boot, or was given in advance. */
const REMEMBERED = ['/var/lib/cloud/instances/*/vendor-data*', '/var/lib/cloud/seed/*/vendor-data*'];

function datasourceList(text: string): string[] | undefined {
  let value: unknown;
  try {
    value = yaml.parse(text, { version: '1.1', maxAliasCount: 20, logLevel: 'error' });
  } catch {
    return undefined;
  }
  const list =
    typeof value === 'object' && value !== null && 'datasource_list' in value && value.datasource_list;
  return Array.isArray(list) ? list.map(String) : undefined;
}

/** The list cloud-init goes by, and the file it is from: the last one by name wins. */
export async function configuredDatasources(
  guest: GuestFiles,
): Promise<{ list: string[]; file: string } | undefined> {
  const names = (await guest.list(CONFIG_DIR)).filter((n) => n.endsWith('.cfg')).sort();
  for (const file of [MAIN_CONFIG, ...names.map((n) => `${CONFIG_DIR}/${n}`)].reverse()) {
    const list = datasourceList((await guest.readText(file)) ?? '');
    if (list !== undefined) return { list, file };
  }
  return undefined;
}

/** cloud-init is there, nothing stops it, and it looks where the contract says. */
export async function checkDatasources({ contract, guest }: Evidence): Promise<ContractCheck> {
  const faults: string[] = [];
  const installed = ['/usr/bin/cloud-init', '/usr/local/bin/cloud-init'];
  const kinds = await Promise.all(installed.map((p) => guest.kind(p)));
  if (kinds.every((k) => k === 'missing')) faults.push('cloud-init is not installed');
  const found = await configuredDatasources(guest);
  const claimed = contract.facts.datasources;
  if (found === undefined) faults.push('no datasource_list is configured');
  else {
    const absent = claimed.filter((d) => !found.list.includes(d));
    const extra = found.list.filter((d) => !claimed.includes(d));
    if (absent.length > 0) faults.push(`${found.file} does not name ${named(absent)}`);
    if (extra.length > 0) faults.push(`${found.file} names ${named(extra)}, the contract does not`);
  }
  const { blockers } = await findBlockers(guest);
  faults.push(...blockers.map((b) => `${b.path}: ${b.why}`));
  return check('datasources', faults, `${found?.list.join(', ')} (${found?.file})`);
}

/** Each data set has its credential, and an image that needs one says how it can be given. */
export function checkCredentials({ contract }: Evidence): ContractCheck {
  const { data, credentials, needs } = contract;
  const faults: string[] = [];
  for (const set of data) {
    const listed = credentials.find((c) => c.name === set.credential);
    if (set.credential !== `data.${set.id}.url`)
      faults.push(`${set.id}: ${set.credential} is not the name a provision document uses`);
    if (listed === undefined) faults.push(`${set.id}: ${set.credential} is not among the credentials`);
    else if (set.mode === 'eager' && !listed.required)
      faults.push(`${set.id} is fetched at boot, but its credential is not required`);
  }
  if (new Set(data.map((d) => d.id)).size !== data.length) faults.push('two data sets have the same id');
  if (data.some((d) => d.mode !== 'manual') && needs.configDrive === 'none')
    faults.push('data sets are fetched by the instance, but no config drive is asked for');
  return check('credentials', faults, `${credentials.length} named, one for each data set`);
}

/** Every copy of an image carries what is stored in it, so a provision document in it is told. Never its content. */
export async function checkSecrets({ guest }: Evidence): Promise<ContractCheck> {
  const found: string[] = [];
  for (const path of STORED_DOCUMENTS) if ((await guest.kind(path)) !== 'missing') found.push(path);
  for (const pattern of REMEMBERED) {
    for (const path of await guest.glob(pattern)) {
      if ((await guest.kind(path)) !== 'file') continue;
      if ((await guest.readText(path))?.includes('port_image') === true) found.push(path);
    }
  }
  if (found.length === 0) return check('secrets', [], 'no provision document is stored in the image');
  const detail = `a provision document is stored in the image, so every copy carries its URLs: ${named(found)}`;
  return { ...check('secrets', [], detail), warning: true };
}
