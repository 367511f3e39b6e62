/** Everything that can refuse an upload, asked before any long work. */
import { randomUUID } from 'node:crypto';
import { asPortError, PortError } from '../../../core/errors.ts';
import { MIB } from '../../../core/sizes.ts';
import { printable } from '../../../core/text.ts';
import { GlanceApi } from '../../../tools/openstack/glance.ts';
import { HttpError } from '../../../tools/openstack/http.ts';
import type { CloudSession } from '../../../tools/openstack/session.ts';
import { SwiftApi } from '../../../tools/openstack/swift.ts';
import { tempUrlDigest } from '../../../tools/openstack/tempurl.ts';
import type { GlanceRequest } from '../options.ts';
import { STATE } from '../properties.ts';
import { readSigningKey } from '../signature.ts';
import { chooseMethod, readOffer } from './method.ts';
import { type Neighbours, readNeighbours } from './own-images.ts';
import type { ChosenMethod } from './types.ts';

/** What is known before the image is there. */
export interface PlanInput {
  name: string;
  request: GlanceRequest;
  jobId: string;
  /** Size of the image file; 0 while it is not known. */
  bytes: number;
  signal: AbortSignal;
  warn: (text: string) => void;
}

/** What the upload would do. */
export interface GlancePlan {
  cloud: string;
  method: ChosenMethod;
  why: string;
  /** Ids of older versions that will be hidden or removed. */
  replaces: string[];
  /** Unfinished images of this job that will be taken over or removed. */
  leftovers: string[];
}

/** More properties than an image of ours has: the probe proves that the quota takes them. */
const PROBED_PROPERTIES = 40;
/** Less than the 10 s within which an interrupted program has to end. */
const CLEAN_UP_MS = 8_000;

/**
 * Proves login, service, ways, stores, quota, roles and names. For the role it makes a private image without content,
 * marked as this job's, and removes it at once; nothing else changes. Throws CLOUD_REFUSED, CLOUD_CONFLICT, USAGE,
 * CONFIG, each naming what is missing.
 */
export async function planUpload(session: CloudSession, input: PlanInput): Promise<GlancePlan> {
  const { request, signal } = input;
  if (request.signKey !== undefined) await readSigningKey(request.signKey, request.signCertificate);
  const glance = await GlanceApi.open(session, { signal });
  const { method, why } = chooseMethod(request, await readOffer(glance, signal), input.bytes);
  if (method === 'web-download') await tempUrlDigest(new SwiftApi(session), signal);
  await refuseQuota(glance, input);
  const neighbours = await readNeighbours(glance, input.name, input.jobId, signal);
  refuseName(neighbours, input);
  await probe(glance, input);
  return {
    cloud: session.config.name,
    method,
    why,
    replaces: neighbours.versions.filter((v) => v.port_image_job !== input.jobId).map((v) => v.id),
    leftovers: neighbours.unfinished.map((i) => i.id),
  };
}

async function refuseQuota(glance: GlanceApi, { bytes, signal }: PlanInput): Promise<void> {
  const usage = await glance.usage({ signal });
  const total = usage?.image_size_total;
  if (total !== undefined && total.limit >= 0 && total.usage + bytes / MIB >= total.limit) {
    throw new PortError(
      'CLOUD_REFUSED',
      `the image quota of the project is used up: ${total.usage} of ${total.limit} MiB`,
      { hint: 'remove older images or ask the operator for more (image_size_total)' },
    );
  }
  const count = usage?.image_count_total;
  if (count !== undefined && count.limit >= 0 && count.usage >= count.limit) {
    throw new PortError('CLOUD_REFUSED', `the project has ${count.usage} of ${count.limit} allowed images`, {
      hint: 'remove older images or ask the operator for more (image_count_total)',
    });
  }
}

function refuseName({ versions, foreign }: Neighbours, { name, request, jobId, warn }: PlanInput): void {
  const others = versions.filter((v) => v.port_image_job !== jobId);
  const [first] = others;
  if (request.onExists === 'fail' && (first ?? foreign[0]) !== undefined) {
    throw new PortError(
      'CLOUD_CONFLICT',
      `the project has an image ${printable(name)} already: ${(first ?? foreign[0])?.id ?? ''}`,
      { hint: 'take --on-exists new-version or another --name' },
    );
  }
  const kept = request.onExists === 'replace' ? others.find((v) => v.protected) : undefined;
  if (kept !== undefined) {
    throw new PortError('CLOUD_REFUSED', `the image to replace is protected: ${kept.id}`, {
      hint: `openstack image set --unprotect ${kept.id}, or take --on-exists new-version`,
    });
  }
  if (foreign.length > 0) {
    warn(
      `the project has another image ${printable(name)} that port-image did not make (${foreign[0]?.id}); it stays as it is, so name the new one by its id`,
    );
  }
}

async function probe(glance: GlanceApi, input: PlanInput): Promise<void> {
  const { signal, request } = input;
  const id = randomUUID();
  const filler = Object.fromEntries(
    Array.from({ length: PROBED_PROPERTIES }, (_, n) => [`port_image_probe_${n}`, '-']),
  );
  let isProven = false;
  try {
    await glance.create(
      {
        id,
        name: input.name,
        disk_format: 'raw',
        container_format: 'bare',
        visibility: 'private',
        ...filler,
        port_image_job: input.jobId,
        port_image_state: STATE.inProgress,
      },
      { signal },
    );
    if (request.visibility === 'public' || request.visibility === 'community') {
      if (!(await glance.mayPublish(id, request.visibility, { signal }))) {
        throw new PortError('CLOUD_REFUSED', `this login may not make an image ${request.visibility}`, {
          hint: `its roles are: ${printable(glance.session.roles.join(', '))}; use --visibility private or shared`,
        });
      }
    }
    isProven = true;
  } catch (error) {
    if (error instanceof HttpError && error.status === 403) {
      throw new PortError('CLOUD_REFUSED', `this login may not make images: ${error.message}`, {
        hint: `its roles are: ${printable(glance.session.roles.join(', ')) || 'none'}; member is usual`,
        cause: error,
      });
    }
    if (error instanceof HttpError && error.status === 413) {
      throw new PortError('CLOUD_REFUSED', `the cloud takes no image with our properties: ${error.message}`, {
        hint: 'the operator sets image_property_quota',
        cause: error,
      });
    }
    throw error;
  } finally {
    // With a signal of its own: an interrupt must not leave it behind. What went wrong before says more than this, and
    // the image carries our mark, so the next run removes it.
    await glance.remove(id, { signal: AbortSignal.timeout(CLEAN_UP_MS) }).catch((error: unknown) => {
      if (isProven) throw error;
      input.warn(`the image ${id}, made to try the login, may be left behind: ${asPortError(error).message}`);
    });
  }
}
