/**
 * `ovf-env.xml` on a CD: the OVF environment of vSphere (DMTF DSP0243, 9.3; canonical/cloud-init DataSourceOVF) and the one Azure
 * provisions with (canonical/cloud-init DataSourceAzure).
 */

import { xmlText } from '../xml-text.ts';
import { AZURE_USER } from './azure.ts';
import type { ServiceMetadata } from './service.ts';

/** Labels ds-identify knows an OVF environment by. */
export const OVF_LABEL = 'OVF ENV';
/** Azure's CD; cloud-init reads whatever is in the first drive. */
export const AZURE_LABEL = 'rd_rdfe_stable';

/** The environment as vSphere's ISO transport hands it over. */
export function ovfEnvironment(meta: ServiceMetadata): string {
  const properties = {
    'instance-id': meta.instanceId,
    hostname: meta.hostname,
    'user-data': Buffer.from(meta.userData).toString('base64'),
  };
  const lines = Object.entries(properties).map(
    ([key, value]) => `    <Property oe:key="${key}" oe:value="${xmlText(value)}"/>`,
  );
  return `<?xml version="1.0" encoding="UTF-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:oe="http://schemas.dmtf.org/ovf/environment/1" oe:id="">
  <PropertySection>
${lines.join('\n')}
  </PropertySection>
</Environment>
`;
}

/** Azure's provisioning document; user data is its CustomData. */
export function azureEnvironment(meta: ServiceMetadata): string {
  return `<?xml version="1.0" encoding="utf-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:wa="http://schemas.microsoft.com/windowsazure">
  <wa:ProvisioningSection>
    <wa:Version>1.0</wa:Version>
    <wa:LinuxProvisioningConfigurationSet>
      <wa:ConfigurationSetType>LinuxProvisioningConfiguration</wa:ConfigurationSetType>
      <wa:HostName>${xmlText(meta.hostname)}</wa:HostName>
      <wa:UserName>${AZURE_USER}</wa:UserName>
      <wa:DisableSshPasswordAuthentication>true</wa:DisableSshPasswordAuthentication>
      <wa:CustomData>${Buffer.from(meta.userData).toString('base64')}</wa:CustomData>
    </wa:LinuxProvisioningConfigurationSet>
  </wa:ProvisioningSection>
  <wa:PlatformSettingsSection>
    <wa:Version>1.0</wa:Version>
    <wa:PlatformSettings>
      <wa:KmsServerHostname>kms.core.windows.net</wa:KmsServerHostname>
      <wa:ProvisionGuestAgent>true</wa:ProvisionGuestAgent>
      <wa:PreprovisionedVm>false</wa:PreprovisionedVm>
    </wa:PlatformSettings>
  </wa:PlatformSettingsSection>
</Environment>
`;
}
