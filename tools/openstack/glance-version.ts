/** Where a cloud's Glance is, and which versions of its protocol it speaks. */
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import type { CallOptions } from './glance.ts';
import { VersionList } from './glance-types.ts';
import { withRetries } from './retry.ts';
import type { CloudSession } from './session.ts';

/** The image service of a catalog. */
export interface GlanceService {
  /** URL of v2, with a slash at its end. */
  root: URL;
  /** Newest minor version the service lists, such as 2.15; undefined when it lists none. */
  version: string | undefined;
}

/** URL below which the catalog's image service is; its own may end with a version or not. Throws CLOUD_REFUSED without one. */
function serviceBase(session: CloudSession): URL {
  return new URL(session.endpoint('image').href.replace(/\/v[12](\.\d+)?\/$/, '/'));
}

/** URL of v2 by the catalog alone. Throws CLOUD_REFUSED without an image service. */
export function glanceRoot(session: CloudSession): URL {
  return new URL('v2/', serviceBase(session));
}

/** Finds the service and its version. Throws CLOUD_REFUSED without an image service, CLOUD without v2. */
export async function findGlance(session: CloudSession, options: CallOptions): Promise<GlanceService> {
  // The list of versions is above v2.
  const base = serviceBase(session);
  const answer = await withRetries(
    () =>
      session.http.request(base, {
        method: 'GET',
        okStatus: [200, 300, 401, 403, 404],
        what: 'versions of Glance',
        ...options,
      }),
    options,
  );
  const value = await answer.json().catch(() => undefined);
  const parsed = VersionList.safeParse(value);
  const root = new URL('v2/', base);
  // A gateway may hide the list; then v2 has to prove itself by the next request.
  if (!parsed.success) return { root, version: undefined };
  const numbers = parsed.data.versions
    .map((v) => /^v(2\.\d+)$/.exec(v.id)?.[1])
    .filter((v) => v !== undefined)
    .sort((a, b) => Number(b.slice(2)) - Number(a.slice(2)));
  if (numbers.length === 0) {
    throw new PortError('CLOUD', `${base.host} offers no Glance v2`, {
      hint: `it lists: ${printable(parsed.data.versions.map((v) => v.id).join(', '))}`,
    });
  }
  return { root, version: numbers[0] };
}
