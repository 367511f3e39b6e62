/** Google's metadata server (cloud.google.com/compute/docs/metadata/querying-metadata). */
import {
  at,
  listing,
  type MetadataService,
  NOT_FOUND,
  type ServiceMetadata,
  type Tree,
  text,
} from './service.ts';

const ROOT = '/computeMetadata/v1';
/** The agent asks for changes all the time; nothing ever changes. */
const LONG_POLL_MS = 30_000;
const FLAVOR = { 'metadata-flavor': 'Google', server: 'Metadata Server for VM', etag: '0123456789abcdef' };

function tree(meta: ServiceMetadata): Tree {
  return {
    instance: {
      attributes: { 'user-data': meta.userData },
      hostname: `${meta.hostname}.europe-west3-a.c.verify.internal`,
      id: '1234567890123456789',
      name: meta.hostname,
      'machine-type': 'projects/123456789012/machineTypes/e2-small',
      'network-interfaces': { 0: { ip: meta.address, mac: meta.mac, mtu: '1460' } },
      zone: 'projects/123456789012/zones/europe-west3-a',
    },
    project: { attributes: {}, 'numeric-project-id': '123456789012', 'project-id': 'verify' },
  };
}

/** Requests without `Metadata-Flavor: Google` are refused, as the real one does. */
export function gce(meta: ServiceMetadata): MetadataService {
  const all = tree(meta);
  return ({ method, path, query, headers }) => {
    if (headers['metadata-flavor'] !== 'Google') return { status: 403, headers: FLAVOR };
    if (method === 'PUT' || method === 'POST') return { status: 200, headers: FLAVOR };
    if (path === '/') return { ...text('computeMetadata/\n'), headers: FLAVOR };
    if (path !== ROOT && !path.startsWith(`${ROOT}/`)) return { ...NOT_FOUND, headers: FLAVOR };
    const found = at(all, path.slice(ROOT.length));
    if (found === undefined) return { ...NOT_FOUND, headers: FLAVOR };
    const wait =
      query.get('wait_for_change') === 'true' && query.get('last_etag') === FLAVOR.etag
        ? { afterMs: LONG_POLL_MS }
        : {};
    if (typeof found === 'string') return { ...text(found), headers: FLAVOR, ...wait };
    const body =
      query.get('recursive')?.toLowerCase() === 'true'
        ? text(JSON.stringify(found), 'application/json')
        : text(`${listing(found)}\n`);
    return { ...body, headers: FLAVOR, ...wait };
  };
}
