/** Oracle's instance metadata, version 2 (docs.oracle.com/iaas/Content/Compute/Tasks/gettingmetadata.htm). */
import { type MetadataService, NOT_FOUND, type ServiceMetadata, text } from './service.ts';

/** Requests without `Authorization: Bearer Oracle` are refused. */
export function oracle(meta: ServiceMetadata): MetadataService {
  const instance = {
    availabilityDomain: 'verify:EU-FRANKFURT-1-AD-1',
    canonicalRegionName: 'eu-frankfurt-1',
    displayName: meta.hostname,
    faultDomain: 'FAULT-DOMAIN-1',
    hostname: meta.hostname,
    id: `ocid1.instance.oc1.eu-frankfurt-1.${meta.instanceId.replaceAll('-', '')}`,
    metadata: { user_data: Buffer.from(meta.userData).toString('base64') },
    ociAdName: 'eu-frankfurt-1-ad-1',
    region: 'eu-frankfurt-1',
    shape: 'VM.Standard.E4.Flex',
    state: 'Running',
  };
  const vnics = [
    {
      macAddr: meta.mac,
      privateIp: meta.address,
      subnetCidrBlock: meta.net,
      vnicId: 'ocid1.vnic.oc1.eu-frankfurt-1.verify',
    },
  ];
  const documents: Readonly<Record<string, unknown>> = {
    '/opc/v2/instance': instance,
    '/opc/v2/instance/metadata': instance.metadata,
    '/opc/v2/vnics': vnics,
  };
  return ({ path, headers }) => {
    const name = path.replace(/\/$/, '');
    if (!Object.hasOwn(documents, name)) return NOT_FOUND;
    if (headers.authorization !== 'Bearer Oracle') return { status: 403 };
    return text(JSON.stringify(documents[name]), 'application/json');
  };
}
