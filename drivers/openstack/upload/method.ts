/** Which way the image takes into Glance. */
import { PortError } from '../../../core/errors.ts';
import { GIB } from '../../../core/sizes.ts';
import { printable } from '../../../core/text.ts';
import type { GlanceApi } from '../../../tools/openstack/glance.ts';
import type { GlanceStore } from '../../../tools/openstack/glance-types.ts';
import type { GlanceRequest } from '../options.ts';
import type { ChosenMethod } from './types.ts';

/** What a cloud offers. */
export interface Offer {
  importMethods: readonly string[];
  /** Undefined: one store without a name. */
  stores: readonly GlanceStore[] | undefined;
  /** Whether the catalog lists an object store for the detour of web-download. */
  hasObjectStore: boolean;
}

/**
 * From this size on a cut upload hurts more than the detour over Swift, which can resume but moves the bytes twice
 * inside the cloud: 4 GiB are an hour on 10 Mbit/s and six minutes on 100 Mbit/s.
 */
export const RESUMABLE_FROM_BYTES = 4 * GIB;

/** Asks the cloud. */
export async function readOffer(glance: GlanceApi, signal?: AbortSignal): Promise<Offer> {
  const [importMethods, stores] = await Promise.all([
    glance.importMethods({ signal }),
    glance.stores({ signal }),
  ]);
  let hasObjectStore = true;
  try {
    glance.session.endpoint('object-store');
  } catch {
    hasObjectStore = false;
  }
  return { importMethods, stores, hasObjectStore };
}

/** The way, and why. Throws CLOUD_REFUSED naming what the cloud lacks. */
export function chooseMethod(
  request: Pick<GlanceRequest, 'method' | 'stores'>,
  offer: Offer,
  bytes: number,
): { method: ChosenMethod; why: string } {
  checkStores(request, offer);
  const { importMethods, hasObjectStore } = offer;
  const canStage = importMethods.includes('glance-direct');
  const canPull = importMethods.includes('web-download') && hasObjectStore;
  const many = request.stores === 'all' || request.stores.length > 1;
  if (request.method === 'put' && many) {
    throw new PortError('USAGE', 'a plain upload reaches one Glance store only', {
      hint: 'use --upload-method import, or name one store',
    });
  }
  if (request.method === 'import' && !canStage) throw missing('glance-direct', importMethods);
  if (request.method === 'web-download' && !canPull) {
    if (!hasObjectStore) {
      throw new PortError('CLOUD_REFUSED', 'this cloud has no object store to import the image from');
    }
    throw missing('web-download', importMethods);
  }
  if (request.method !== 'auto') return { method: request.method, why: 'asked for' };
  if (canPull && bytes >= RESUMABLE_FROM_BYTES) {
    return { method: 'web-download', why: 'large, and this way can resume' };
  }
  if (!many) return { method: 'put', why: 'one store' };
  if (canStage) return { method: 'import', why: 'several stores' };
  if (canPull) return { method: 'web-download', why: 'several stores' };
  throw missing('glance-direct', importMethods);
}

function missing(method: string, offered: readonly string[]): PortError {
  return new PortError('CLOUD_REFUSED', `this cloud does not offer the import method ${method}`, {
    hint: `it offers: ${printable(offered.join(', ')) || 'none'}; --upload-method put works everywhere`,
  });
}

function checkStores({ stores }: Pick<GlanceRequest, 'stores'>, offer: Offer): void {
  if (stores === 'all') {
    if (offer.stores !== undefined) return;
    throw new PortError('CLOUD_REFUSED', 'this cloud has only one Glance store and no name for it', {
      hint: 'leave --glance-stores out',
    });
  }
  const known = (offer.stores ?? []).filter((s) => !s['read-only']).map((s) => s.id);
  const unknown = stores.filter((s) => !known.includes(s));
  if (unknown.length > 0) {
    throw new PortError('CLOUD_REFUSED', `no such Glance store: ${printable(unknown.join(', '))}`, {
      hint: `this cloud has: ${printable(known.join(', ')) || 'one without a name'}`,
    });
  }
}
