/** Taking back what was minted, with proof. */
import { PortError } from '../../core/errors.ts';
import type { Store } from '../../drivers/stores/store.ts';
import {
  deleteApplicationCredential,
  showApplicationCredential,
} from '../../tools/openstack/application-credential.ts';
import { CloudSession } from '../../tools/openstack/session.ts';
import { pointerEnd } from './gc-plan.ts';
import { objectsOf, requireId } from './sets.ts';

/**
 * Makes every signed URL of a data set worthless (the store proves it), and removes the provision documents kept
 * beside the set. Throws USAGE for a store without URLs or an unknown id, STORE.
 */
export async function revokeUrls(
  store: Store,
  id: string,
  signal?: AbortSignal,
): Promise<{ removedDocuments: number }> {
  if (store.revoke === undefined) {
    throw new PortError('USAGE', `${store.url} makes no URLs, so there is nothing to revoke`);
  }
  await requireId(store, id);
  await store.revoke(id, { signal });
  let removedDocuments = 0;
  for (const { key } of await objectsOf(store, id)) {
    if (pointerEnd(key.slice(id.length + 1)) === undefined) continue;
    await store.remove(key);
    removedDocuments += 1;
  }
  return { removedDocuments };
}

/**
 * Deletes an application credential and proves that it is gone: Keystone does not know it, and, when its secret is
 * known, gives no token for it. Throws USAGE when there was none, CLOUD when it still works.
 */
export async function revokeCredential(
  session: CloudSession,
  id: string,
  options: { secret?: string | undefined; signal?: AbortSignal | undefined } = {},
): Promise<{ proof: string }> {
  const { secret, signal } = options;
  if (!(await deleteApplicationCredential(session, id, signal))) {
    throw new PortError('USAGE', `this user has no application credential ${id}`);
  }
  if ((await showApplicationCredential(session, id, signal)) !== undefined) {
    throw new PortError('CLOUD', `the application credential ${id} is still there after its removal`);
  }
  if (secret === undefined) return { proof: 'Keystone does not know it any more' };
  const auth = { type: 'application_credential' as const, id, secret };
  let still: CloudSession;
  try {
    still = await CloudSession.open({ ...session.config, auth }, { signal });
  } catch (error) {
    if (error instanceof PortError && error.code === 'CLOUD_LOGIN') {
      return { proof: 'Keystone gives no token for it any more' };
    }
    throw error;
  }
  await still.close();
  throw new PortError('CLOUD', `Keystone still gives a token for the deleted application credential ${id}`);
}
