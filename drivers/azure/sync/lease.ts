/** The lock of an image: a lease of its disk. Who loses it can write no more, so a run that was taken for dead does no harm. */
import { createHash } from 'node:crypto';
import type { PageBlobClient } from '@azure/storage-blob';
import { busy } from '../../../core/sync/owner.ts';
import type { CreateInput } from '../../../core/sync/types.ts';
import { codeOf } from '../../../tools/azure/errors.ts';
import { asked } from '../place.ts';

/** A finite lease is at most a minute (Microsoft Learn, "Lease Blob"): a killed run does not lock the disk for long. */
const LEASE_S = 60;
const RENEW_MS = 20_000;

/** The same for all runs of a place, of which only one is alive: it needs not wait for the lease of a killed one. */
function leaseIdOf(mark: string, owner: string): string {
  const place = owner.slice(owner.indexOf('@') + 1);
  const hex = createHash('sha256').update(`${mark}\0${place}`).digest('hex');
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `4${hex.slice(13, 16)}`,
    `8${hex.slice(17, 20)}`,
    hex.slice(20, 32),
  ].join('-');
}

/** Works while the lease is held. Throws SYNC_BUSY when another run has it, or took it meanwhile. */
export async function underLease<T>(
  input: CreateInput,
  blob: PageBlobClient,
  mark: string,
  work: (leaseId: string) => Promise<T>,
): Promise<T> {
  const { signal, log, identity, owner } = input;
  const leaseId = leaseIdOf(mark, owner);
  const lease = blob.getBlobLeaseClient(leaseId);
  const lost = (error: unknown): unknown =>
    /^Lease/.test(codeOf(error)) && !signal.aborted ? busy(identity.series, '', error) : error;
  try {
    await asked('taking the lease', signal, () => lease.acquireLease(LEASE_S, { abortSignal: signal }));
  } catch (error) {
    throw lost(error);
  }
  const renewing = setInterval(() => {
    lease.renewLease().catch((error: unknown) => log.warn('lease not renewed', { code: codeOf(error) }));
  }, RENEW_MS);
  try {
    return await work(leaseId);
  } catch (error) {
    throw lost(error);
  } finally {
    clearInterval(renewing);
    await lease
      .releaseLease()
      .catch((error: unknown) => log.debug('lease not released', { code: codeOf(error) }));
  }
}
