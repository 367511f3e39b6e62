/** Signed URLs where a store can make them; where it cannot, the work goes on and the reason is told. */
import { PortError } from '../../core/errors.ts';
import type { Provisioned, ProvisionOptions, Store } from './store.ts';

/**
 * URLs for the data sets, or undefined where the store signs none. A store that refuses to (Ceph RGW, no TempURL, sha1
 * only) is a warning: a conversion of hours must not end with it, and an application credential does the same. Throws
 * what else goes wrong.
 */
export async function provisionIfAble(
  store: Store,
  ids: readonly string[],
  options: ProvisionOptions,
  warn: (text: string) => void,
): Promise<Provisioned | undefined> {
  try {
    return await store.provision?.(ids, options);
  } catch (error) {
    if (!(error instanceof PortError) || error.code !== 'CLOUD_REFUSED') throw error;
    warn(
      `no signed URLs: ${error.message}; hand the data over with port-image data mint --application-credential new`,
    );
    return undefined;
  }
}
