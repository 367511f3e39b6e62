/** The provision document for the instance: real signed URLs where the store can make them. */
import * as path from 'node:path';
import type { Provision } from '../../core/contract.ts';
import { writeFileAtomic, writeJson } from '../../core/files.ts';
import { formatBytes } from '../../core/sizes.ts';
import type { StageContext } from '../../core/stage.ts';
import type { Verification } from '../../core/types.ts';
import { withStore } from '../../drivers/stores/index.ts';
import { provisionIfAble } from '../../drivers/stores/provision.ts';
import { provisionUserData, USER_DATA_LIMIT_BYTES } from '../../tools/user-data.ts';

const HOUR_MS = 3600_000;

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

/** Writes provision.json, vendor-data.json and user-data.yaml, all 0600. Throws as the store's `provision`. */
export async function writeProvision(
  ctx: StageContext,
  dataSets: readonly { id: string }[],
): Promise<Provisioning> {
  const { out } = ctx.paths;
  const minted = dataSets.length === 0 ? undefined : await mint(ctx, dataSets);
  const provision = { ...(minted ?? provisionTemplate(dataSets)), ...prefetchOf(ctx) };
  await writeJson(path.join(out, 'provision.json'), provision);
  // The form Nova's dynamic vendor data has in vendor_data2.json.
  await writeJson(path.join(out, 'vendor-data.json'), { port_image: provision });
  const { text, encodedBytes } = provisionUserData(provision);
  if (encodedBytes > USER_DATA_LIMIT_BYTES) {
    ctx.warn(
      `user-data.yaml takes ${formatBytes(encodedBytes)}, more than Nova accepts; hand provision.json over by vendor data`,
    );
  }
  await writeFileAtomic(path.join(out, 'user-data.yaml'), text);
  const ends = Object.values(provision.data).flatMap((d) => d.expires ?? []);
  return { signed: minted !== undefined, expires: ends.sort()[0] };
}

function mint(ctx: StageContext, dataSets: readonly { id: string }[]): Promise<Provision | undefined> {
  const ids = dataSets.map((d) => d.id);
  const lifeMs = ctx.request.urlHours * HOUR_MS;
  return withStore(
    ctx.request,
    ctx.signal,
    async (store) =>
      (await provisionIfAble(store, ids, { lifeMs, signal: ctx.signal }, (text) => ctx.warn(text)))?.document,
  );
}

/** The lazy data sets in the order in which the verification boot first used them. */
function prefetchOf(ctx: StageContext): Pick<Provision, 'prefetch'> {
  const accesses = (ctx.result<Verification[]>('verify') ?? []).flatMap((v) => v.lazyAccess ?? []);
  const ids = [...new Set(accesses.sort((a, b) => a.seconds - b.seconds).map((a) => a.id))];
  return ids.length === 0 ? {} : { prefetch: ids };
}
