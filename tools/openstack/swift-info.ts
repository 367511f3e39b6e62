/** What a Swift service can do, from its unauthenticated `GET /info`, with the documented defaults where it is silent. */
import * as z from 'zod';
import { GIB, MIB } from '../../core/sizes.ts';
import { HttpError } from './http.ts';
import type { CloudSession } from './session.ts';

/** Digests of TempURL signatures, strongest first. sha1 is left out: Swift calls it deprecated, and so do we. */
export const TEMP_URL_DIGESTS = ['sha512', 'sha256'] as const;
/** A digest of a TempURL signature. */
export type TempUrlDigest = (typeof TEMP_URL_DIGESTS)[number];

/** Limits and abilities of one service. */
export interface SwiftInfo {
  /** Largest single object in bytes. */
  maxFileBytes: number;
  /** Most entries of one listing. */
  listingLimit: number;
  slo: { maxManifestSegments: number; minSegmentBytes: number } | undefined;
  /** Undefined when there is no TempURL; `digests` is empty when only sha1 is allowed. */
  tempUrl: { digests: readonly TempUrlDigest[]; methods: readonly string[] } | undefined;
  /** Ceph's RADOS gateway, which speaks Swift but keeps TempURL keys per account only. */
  isRgw: boolean;
  /** False when the service does not answer `/info`, so that all of this are defaults. */
  isKnown: boolean;
}

const Limit = z.number().int().positive();
const Info = z.looseObject({
  swift: z
    .looseObject({
      max_file_size: Limit.optional(),
      container_listing_limit: Limit.optional(),
      version: z.string().optional(),
      policies: z.unknown().optional(),
    })
    .default({}),
  slo: z
    .looseObject({ max_manifest_segments: Limit.optional(), min_segment_size: Limit.optional() })
    .optional(),
  tempurl: z
    .looseObject({
      methods: z.array(z.string()).optional(),
      allowed_digests: z.array(z.string()).optional(),
      incoming_remove_headers: z.unknown().optional(),
    })
    .optional(),
});

// Swift's defaults: constraints.py (5 GiB + 2 bytes; S3 stops at 5 GiB), slo.py, tempurl.py
const DEFAULTS: SwiftInfo = {
  maxFileBytes: 5 * GIB,
  listingLimit: 10_000,
  slo: { maxManifestSegments: 1000, minSegmentBytes: MIB },
  tempUrl: { digests: ['sha256'], methods: ['GET', 'HEAD', 'PUT', 'POST', 'DELETE'] },
  isRgw: false,
  isKnown: false,
};

/** Reads an answer of `/info`. `endpoint` is the account's URL, whose path tells the gateway too. */
export function parseSwiftInfo(value: unknown, endpoint: URL): SwiftInfo {
  const parsed = Info.safeParse(value);
  const isGatewayPath = /^\/swift\/v1(\/|$)/.test(endpoint.pathname);
  if (!parsed.success) return { ...DEFAULTS, isRgw: isGatewayPath };
  const { swift, slo, tempurl } = parsed.data;
  // The gateway gives Ceph's version (12, 17, …; Swift is at 2), no policies, and a tempurl section without header lists.
  const major = Number(/^\d+/.exec(swift.version ?? '')?.[0] ?? 0);
  const isRgw =
    isGatewayPath ||
    major >= 9 ||
    (swift.version !== undefined &&
      swift.policies === undefined &&
      tempurl !== undefined &&
      tempurl.incoming_remove_headers === undefined);
  const allowed = tempurl?.allowed_digests;
  return {
    maxFileBytes: Math.min(swift.max_file_size ?? DEFAULTS.maxFileBytes, DEFAULTS.maxFileBytes),
    listingLimit: Math.min(swift.container_listing_limit ?? DEFAULTS.listingLimit, DEFAULTS.listingLimit),
    slo:
      slo === undefined
        ? undefined
        : {
            maxManifestSegments: slo.max_manifest_segments ?? 1000,
            minSegmentBytes: slo.min_segment_size ?? 1,
          },
    tempUrl:
      tempurl === undefined
        ? undefined
        : {
            // Services older than the list (before 2.15) know sha1 alone.
            digests: TEMP_URL_DIGESTS.filter((d) => allowed?.includes(d) ?? false),
            methods: tempurl.methods ?? ['GET', 'HEAD'],
          },
    isRgw,
    isKnown: true,
  };
}

/** Where `/info` of an account's URL is: beside `/v1`. */
export function infoUrl(endpoint: URL): URL {
  const before = endpoint.pathname.replace(/\/v1(\.0)?(\/.*)?$/, '');
  return new URL(`${before === endpoint.pathname ? '' : before}/info`, endpoint.origin);
}

/** Asks the service; one that hides `/info` gets the defaults. Throws CLOUD when it cannot be reached. */
export async function readSwiftInfo(
  session: CloudSession,
  endpoint: URL,
  signal?: AbortSignal,
): Promise<SwiftInfo> {
  try {
    const answer = await session.request(infoUrl(endpoint), {
      method: 'GET',
      what: 'abilities of the object store',
      signal,
    });
    return parseSwiftInfo(await answer.json().catch(() => undefined), endpoint);
  } catch (error) {
    if (error instanceof HttpError && error.status >= 400 && error.status < 500)
      return parseSwiftInfo(undefined, endpoint);
    throw error;
  }
}
