/**
 * Azure's instance metadata (learn.microsoft.com/azure/virtual-machines/instance-metadata-service) and the part of its wire
 * server provisioning needs: goal state and health report (canonical/cloud-init:cloudinit/sources/helpers/azure.py).
 */

import { xmlText } from '../xml-text.ts';
import { type MetadataService, NOT_FOUND, type ServiceMetadata, text } from './service.ts';

/** Account the platform asks for; it exists in the throw-away machine only. */
export const AZURE_USER = 'port-image-verify';

function instance(meta: ServiceMetadata): object {
  return {
    compute: {
      azEnvironment: 'AzurePublicCloud',
      location: 'westeurope',
      name: meta.hostname,
      osProfile: {
        adminUsername: AZURE_USER,
        computerName: meta.hostname,
        disablePasswordAuthentication: 'true',
      },
      osType: 'Linux',
      publicKeys: [],
      tagsList: [],
      userData: '',
      vmId: meta.instanceId,
      vmSize: 'Standard_B2s',
    },
    network: {
      interface: [
        {
          ipv4: {
            ipAddress: [{ privateIpAddress: meta.address, publicIpAddress: '' }],
            subnet: [{ address: meta.address.replace(/\d+$/, '0'), prefix: '24' }],
          },
          ipv6: { ipAddress: [] },
          macAddress: meta.mac.replaceAll(':', '').toUpperCase(),
        },
      ],
    },
  };
}

function goalState(meta: ServiceMetadata): string {
  const id = xmlText(meta.instanceId);
  return `<?xml version="1.0" encoding="utf-8"?>
<GoalState><Version>2012-11-30</Version><Incarnation>1</Incarnation>
<Machine><ExpectedState>Started</ExpectedState><StopRolesDeadlineHint>300000</StopRolesDeadlineHint></Machine>
<Container><ContainerId>${id}</ContainerId><RoleInstanceList><RoleInstance><InstanceId>${id}</InstanceId>
<State>Started</State><Configuration></Configuration></RoleInstance></RoleInstanceList></Container></GoalState>`;
}

/** Both services on one socket: their paths do not meet. */
export function azure(meta: ServiceMetadata): MetadataService {
  return ({ method, path, query, headers }) => {
    if (path.startsWith('/metadata/')) {
      if (headers.metadata?.toString().toLowerCase() !== 'true') return { status: 400 };
      if (path === '/metadata/versions') {
        return text(JSON.stringify({ apiVersions: ['2019-06-01', '2021-08-01'] }), 'application/json');
      }
      if (path === '/metadata/instance') return text(JSON.stringify(instance(meta)), 'application/json');
      return NOT_FOUND;
    }
    if (path.startsWith('/machine')) {
      if (method === 'GET' && query.get('comp') === 'goalstate') return text(goalState(meta), 'text/xml');
      if (method === 'POST' && query.get('comp') === 'health') return text('');
      return NOT_FOUND;
    }
    if (path === '/' && query.get('comp')?.toLowerCase() === 'versions') {
      return text(
        '<?xml version="1.0" encoding="utf-8"?><Versions><Preferred><Version>2015-04-05</Version></Preferred><Supported><Version>2015-04-05</Version><Version>2012-11-30</Version></Supported></Versions>',
        'text/xml',
      );
    }
    return NOT_FOUND;
  };
}
