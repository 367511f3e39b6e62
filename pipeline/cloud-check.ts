/** What one OpenStack cloud offers for image and data; asks, changes nothing. */
import { asPortError, type PortError } from '../core/errors.ts';
import type { Request } from '../core/request.ts';
import { formatBytes } from '../core/sizes.ts';
import { printable } from '../core/text.ts';
import { readOffer } from '../drivers/openstack/upload/method.ts';
import { uploaderOf } from '../drivers/uploaders.ts';
import { loadCloud } from '../tools/openstack/config.ts';
import { GlanceApi } from '../tools/openstack/glance.ts';
import { CloudSession } from '../tools/openstack/session.ts';
import { SwiftApi } from '../tools/openstack/swift.ts';

/** One thing asked. */
export interface CloudFinding {
  /** `login`, `images`, `objects`, `signed URLs`. */
  name: string;
  ok: boolean;
  /** What was found, or what is in the way. Printable. */
  detail: string;
  /** What can be done about it. */
  hint?: string;
}

async function finding(name: string, ask: () => Promise<string>): Promise<CloudFinding> {
  try {
    return { name, ok: true, detail: printable(await ask()) };
  } catch (error) {
    const known: PortError = asPortError(error);
    if (known.code === 'INTERRUPTED' || known.code === 'BUG') throw known;
    return {
      name,
      ok: false,
      detail: known.message,
      ...(known.hint === undefined ? {} : { hint: known.hint }),
    };
  }
}

async function imagesOf(session: CloudSession, signal: AbortSignal): Promise<string> {
  const glance = await GlanceApi.open(session, { signal });
  const { importMethods, stores } = await readOffer(glance, signal);
  const ways = ['put', ...importMethods].join(', ');
  const named = stores === undefined ? 'one store' : `stores ${stores.map((s) => s.id).join(', ')}`;
  return `Glance v${glance.version ?? '2'}, ${ways}; ${named}`;
}

async function objectsOf(swift: SwiftApi, signal: AbortSignal): Promise<string> {
  await swift.headAccount(signal);
  const info = await swift.info(signal);
  const large =
    info.slo === undefined ? 'no large objects' : `SLO of ${info.slo.maxManifestSegments} segments`;
  const kind = info.isRgw ? 'Ceph RGW' : 'Swift';
  return `${kind}, objects up to ${formatBytes(info.maxFileBytes)}, ${large}${info.isKnown ? '' : '; it does not answer /info'}`;
}

/** A way to hand data to an instance that this cloud does not have is a warning, no failure: there are others. */
async function urlsOf(swift: SwiftApi, signal: AbortSignal): Promise<string> {
  const { isRgw, tempUrl } = await swift.info(signal);
  if (isRgw) return 'none per data set (Ceph RGW); data mint --application-credential new works instead';
  if (tempUrl === undefined || tempUrl.digests.length === 0) {
    return 'no TempURL with a safe digest; data mint --application-credential new works instead';
  }
  return `TempURL with ${tempUrl.digests.join(', ')}`;
}

/** Asks the cloud of that name in clouds.yaml, or `envvars`. Throws CONFIG when there is none. */
export async function checkCloud(name: string, signal: AbortSignal): Promise<CloudFinding[]> {
  const config = await loadCloud(name);
  let session: CloudSession | undefined;
  const login = await finding('login', async () => {
    session = await CloudSession.open(config, { signal });
    return `project ${session.projectId}, roles ${session.roles.join(', ')}`;
  });
  if (session === undefined) return [login];
  const swift = new SwiftApi(session);
  try {
    const found = [login, await finding('images', () => imagesOf(session as CloudSession, signal))];
    const objects = await finding('objects', () => objectsOf(swift, signal));
    found.push(objects);
    if (objects.ok) found.push(await finding('signed URLs', () => urlsOf(swift, signal)));
    return found;
  } finally {
    await session.close();
  }
}

/**
 * Logs in to the clouds a request names and finds the services it needs, so that a wrong name or password is told before
 * the disk is looked at; quotas and roles are asked in the plan. Throws CONFIG, CLOUD_LOGIN, CLOUD_REFUSED, CLOUD.
 */
export async function requireClouds(request: Request, signal: AbortSignal): Promise<void> {
  for (const [platform, options] of Object.entries(request.targets)) {
    await uploaderOf(platform).login?.(options, signal);
  }
  if (request.strip === 'none' || request.storeCloud === undefined) return;
  const session = await CloudSession.open(await loadCloud(request.storeCloud), { signal });
  try {
    session.endpoint('object-store');
  } finally {
    await session.close();
  }
}
