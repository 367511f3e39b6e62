/** The catalog of services that comes with a token, and what it says about where one is. */
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import type { CloudConfig } from './config.ts';

/** Service types of the catalog that are used here. */
export type ServiceType = 'image' | 'object-store' | 'identity';

const Endpoint = z.looseObject({
  interface: z.string(),
  region: z.string().nullish(),
  region_id: z.string().nullish(),
  url: z.string(),
});

/** Services of one cloud, as Keystone lists them. */
export const Catalog = z.array(
  z.looseObject({ type: z.string(), name: z.string().optional(), endpoints: z.array(Endpoint) }),
);
export type Catalog = z.infer<typeof Catalog>;

/** Aliases of service types (service-types.openstack.org). */
const ALIASES: Readonly<Record<ServiceType, readonly string[]>> = {
  image: ['image'],
  'object-store': ['object-store'],
  identity: ['identity'],
};

/**
 * URL of a service, with a slash at its end: the configured one, else that of the catalog for interface and region. Throws
 * CLOUD_REFUSED naming the service that is missing, CONFIG when the region is not clear, CLOUD_LOGIN without a project.
 */
export function findEndpoint(
  catalog: Catalog,
  config: CloudConfig,
  service: ServiceType,
  projectId: () => string,
): URL {
  const override = config.endpoints[service];
  if (override !== undefined) {
    const project = projectId();
    const url = override.replaceAll('%(project_id)s', project).replaceAll('$(project_id)s', project);
    if (!URL.canParse(url)) throw new PortError('CONFIG', `endpoint for ${service} is no URL`);
    return withSlash(url);
  }
  const { region, interface: side } = config;
  const services = catalog.filter((s) => ALIASES[service].includes(s.type));
  const all = services.flatMap((s) => s.endpoints);
  const matching = all.filter(
    (e) => e.interface === side && (region === undefined || e.region === region || e.region_id === region),
  );
  const [first] = matching;
  if (first === undefined) {
    const regions = [...new Set(all.map((e) => e.region ?? e.region_id ?? ''))].filter((r) => r !== '');
    throw new PortError(
      'CLOUD_REFUSED',
      `cloud ${printable(config.name)} has no ${service} service with a ${side} endpoint${region === undefined ? '' : ` in region ${printable(region)}`}`,
      {
        hint:
          all.length === 0
            ? 'its catalog does not list one'
            : `it has one in: ${printable(regions.join(', '))}`,
      },
    );
  }
  const found = new Set(matching.map((e) => e.region ?? e.region_id ?? ''));
  if (found.size > 1) {
    throw new PortError('CONFIG', `cloud ${printable(config.name)} has several regions; name one`, {
      hint: `region_name in clouds.yaml or OS_REGION_NAME: ${printable([...found].join(', '))}`,
    });
  }
  if (!URL.canParse(first.url)) throw new PortError('CLOUD', `the catalog's URL for ${service} is none`);
  return withSlash(first.url);
}

function withSlash(url: string): URL {
  return new URL(url.endsWith('/') ? url : `${url}/`);
}
