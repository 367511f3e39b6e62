/** The provision document for the instance: real signed URLs where the store can make them. */
import * as path from 'node:path';
import { stringify } from 'yaml';
import type { Provision } from '../../core/contract.ts';
import { writeFileAtomic, writeJson } from '../../core/files.ts';
import { formatBytes } from '../../core/sizes.ts';
import type { StageContext } from '../../core/stage.ts';
import { openStore } from '../../drivers/stores/index.ts';

const HOUR_MS = 3600_000;
/** Nova takes 65,535 characters of base64 (openstack/nova:nova/api/openstack/compute/schemas/servers.py). */
const USER_DATA_BYTES = 49_150;
/** Where the client in the image finds what a user-data part wrote. */
const GUEST_PATH = '/run/port-image/provision.json';

/** The provision document with a placeholder where the operator's store is named. */
export function provisionTemplate(dataSets: readonly { id: string }[]): Provision {
  const data: Provision['data'] = {};
  for (const set of dataSets) data[set.id] = { url: `https://STORE.EXAMPLE/CONTAINER/${set.id}/` };
  return { version: 1, data };
}

/** What was written. Says nothing of the URLs: they are secrets. */
export interface Provisioning {
  /** True when the URLs work as they are. */
  signed: boolean;
  /** When the first of them ends, ISO 8601. */
  expires: string | undefined;
}

/** `#cloud-config` that puts the document where the image looks for it. */
export function userData(provision: Provision): string {
  const content = `${JSON.stringify(provision)}\n`;
  const file = { path: GUEST_PATH, owner: 'root:root', permissions: '0600', content };
  return `#cloud-config\n${stringify({ write_files: [file] })}`;
}

/** Writes provision.json, vendor-data.json and user-data.yaml, all 0600. Throws as the store's `provision`. */
export async function writeProvision(
  ctx: StageContext,
  dataSets: readonly { id: string }[],
): Promise<Provisioning> {
  const { out } = ctx.paths;
  const minted = dataSets.length === 0 ? undefined : await mint(ctx, dataSets);
  const provision = minted ?? provisionTemplate(dataSets);
  await writeJson(path.join(out, 'provision.json'), provision);
  // The form Nova's dynamic vendor data has in vendor_data2.json.
  await writeJson(path.join(out, 'vendor-data.json'), { port_image: provision });
  const text = userData(provision);
  if (text.length > USER_DATA_BYTES) {
    ctx.warn(
      `user-data.yaml has ${formatBytes(text.length)}, more than Nova takes; hand provision.json over by vendor data`,
    );
  }
  await writeFileAtomic(path.join(out, 'user-data.yaml'), text);
  const ends = Object.values(provision.data).flatMap((d) => d.expires ?? []);
  return { signed: minted !== undefined, expires: ends.sort()[0] };
}

async function mint(ctx: StageContext, dataSets: readonly { id: string }[]): Promise<Provision | undefined> {
  const store = openStore(ctx.request.store, { cloud: ctx.request.storeCloud, signal: ctx.signal });
  try {
    if (store.provision === undefined) return undefined;
    const ids = dataSets.map((d) => d.id);
    const lifeMs = ctx.request.urlHours * HOUR_MS;
    return (await store.provision(ids, { lifeMs, signal: ctx.signal })).document;
  } finally {
    await store.close?.();
  }
}
