/** OVF descriptor of a machine (DMTF DSP0243 1.1, with VMware's extensions as its own exports have them). */
import { MIB, roundUp } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import { xmlText } from '../xml-text.ts';
import type { GuestOs } from './guest-os.ts';

/** ESXi 6.5: the first with secure boot, and old enough to be understood by every host still in use. */
export const HARDWARE_VERSION = 13;
/** Disks one SCSI controller takes, the controller's own address 7 left out. */
export const DISKS_PER_CONTROLLER = 15;

/** A disk of the machine. */
export interface OvaDisk {
  /** Name of its file. */
  file: string;
  fileBytes: number;
  /** Size of the disk. */
  virtualBytes: number;
  /** Bytes of it that hold data. */
  populatedBytes: number;
}

/** The machine. */
export interface OvaMachine {
  name: string;
  os: GuestOs & { title: string };
  firmware: 'bios' | 'uefi';
  cpus: number;
  memoryBytes: number;
  /** The one the firmware starts from first. */
  disks: readonly OvaDisk[];
}

/** Control characters, which XML cannot hold, are shown as escapes, not left out. */
const shown = (text: string) => xmlText(printable(text));

const INSTANCE = { cpu: 1, memory: 2, ide: 3, cd: 4, nic: 5, scsi: 10, disk: 100 } as const;

/** An Item; the children of a resource stand in alphabetical order (CIM_ResourceAllocationSettingData.xsd). */
function item(
  fields: Record<string, string | number>,
  config: Record<string, string> = {},
  required = true,
): string {
  const lines = Object.keys(fields)
    .sort()
    .map((key) => `        <rasd:${key}>${shown(String(fields[key]))}</rasd:${key}>`);
  const extra = Object.entries(config).map(([key, value]) => `        ${vmwConfig(key, value)}`);
  return [`      <Item${required ? '' : ' ovf:required="false"'}>`, ...lines, ...extra, '      </Item>'].join(
    '\n',
  );
}

function vmwConfig(key: string, value: string): string {
  return `<vmw:Config ovf:required="false" vmw:key="${key}" vmw:value="${value}"/>`;
}

function hardware(machine: OvaMachine): string[] {
  const memoryMib = roundUp(machine.memoryBytes, 4 * MIB) / MIB;
  const controllers = Math.ceil(machine.disks.length / DISKS_PER_CONTROLLER);
  return [
    item({
      AllocationUnits: 'hertz * 10^6',
      Description: 'Number of Virtual CPUs',
      ElementName: `${machine.cpus} virtual CPU(s)`,
      InstanceID: INSTANCE.cpu,
      ResourceType: 3,
      VirtualQuantity: machine.cpus,
    }),
    item({
      AllocationUnits: 'byte * 2^20',
      Description: 'Memory Size',
      ElementName: `${memoryMib}MB of memory`,
      InstanceID: INSTANCE.memory,
      ResourceType: 4,
      VirtualQuantity: memoryMib,
    }),
    ...Array.from({ length: controllers }, (_, n) =>
      item({
        Address: n,
        Description: 'SCSI Controller',
        ElementName: `SCSI Controller ${n}`,
        InstanceID: INSTANCE.scsi + n,
        ResourceSubType: 'VirtualSCSI',
        ResourceType: 6,
      }),
    ),
    item({
      Address: 0,
      Description: 'IDE Controller',
      ElementName: 'IDE 0',
      InstanceID: INSTANCE.ide,
      ResourceType: 5,
    }),
    // where the environment of the deployed machine arrives (transport "iso")
    item(
      {
        AddressOnParent: 0,
        AutomaticAllocation: 'false',
        ElementName: 'CD-ROM 1',
        InstanceID: INSTANCE.cd,
        Parent: INSTANCE.ide,
        ResourceSubType: 'vmware.cdrom.remotepassthrough',
        ResourceType: 15,
      },
      {},
      false,
    ),
    ...machine.disks.map((_, n) => {
      const [controller, place] = [Math.floor(n / DISKS_PER_CONTROLLER), n % DISKS_PER_CONTROLLER];
      return item({
        AddressOnParent: place < 7 ? place : place + 1,
        ElementName: `Hard Disk ${n + 1}`,
        HostResource: `ovf:/disk/vmdisk${n + 1}`,
        InstanceID: INSTANCE.disk + n,
        Parent: INSTANCE.scsi + controller,
        ResourceType: 17,
      });
    }),
    item({
      AddressOnParent: 7,
      AutomaticAllocation: 'true',
      Connection: 'VM Network',
      Description: 'VmxNet3 ethernet adapter on "VM Network"',
      ElementName: 'Ethernet 1',
      InstanceID: INSTANCE.nic,
      ResourceSubType: 'VmxNet3',
      ResourceType: 10,
    }),
  ];
}

/** Properties cloud-init's OVF datasource reads (DataSourceOVF.py). */
const PROPERTIES = [
  {
    key: 'instance-id',
    value: 'id-ovf',
    label: 'Instance id: cloud-init sets a machine up anew when it changes',
  },
  { key: 'hostname', value: '', label: 'Host name' },
  { key: 'public-keys', value: '', label: 'SSH public keys of the default user' },
  { key: 'user-data', value: '', label: 'cloud-init user data, base64' },
] as const;

/** The descriptor as XML. */
export function ovfDescriptor(machine: OvaMachine): string {
  const name = shown(machine.name);
  const files = machine.disks.map(
    (d, n) => `    <File ovf:href="${shown(d.file)}" ovf:id="file${n + 1}" ovf:size="${d.fileBytes}"/>`,
  );
  const disks = machine.disks.map(
    (d, n) =>
      `    <Disk ovf:capacity="${d.virtualBytes}" ovf:capacityAllocationUnits="byte" ovf:diskId="vmdisk${n + 1}" ` +
      `ovf:fileRef="file${n + 1}" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized" ` +
      `ovf:populatedSize="${d.populatedBytes}"/>`,
  );
  const properties = PROPERTIES.map(
    (p) =>
      `      <Property ovf:key="${p.key}" ovf:type="string" ovf:userConfigurable="true" ovf:value="${p.value}">\n` +
      `        <Label>${p.label}</Label>\n      </Property>`,
  );
  return `<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vmw="http://www.vmware.com/schema/ovf" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData">
  <References>
${files.join('\n')}
  </References>
  <DiskSection>
    <Info>Virtual disk information</Info>
${disks.join('\n')}
  </DiskSection>
  <NetworkSection>
    <Info>The list of logical networks</Info>
    <Network ovf:name="VM Network">
      <Description>The VM Network network</Description>
    </Network>
  </NetworkSection>
  <VirtualSystem ovf:id="${name}">
    <Info>A virtual machine</Info>
    <Name>${name}</Name>
    <OperatingSystemSection ovf:id="${machine.os.cimId}" vmw:osType="${shown(machine.os.vmwareId)}">
      <Info>The kind of installed guest operating system</Info>
      <Description>${shown(machine.os.title)}</Description>
    </OperatingSystemSection>
    <ProductSection ovf:required="false">
      <Info>What cloud-init asks for at the first boot</Info>
      <Product>${name}</Product>
${properties.join('\n')}
    </ProductSection>
    <VirtualHardwareSection ovf:transport="iso com.vmware.guestInfo">
      <Info>Virtual hardware requirements</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>${name}</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>vmx-${HARDWARE_VERSION}</vssd:VirtualSystemType>
      </System>
${hardware(machine).join('\n')}
      ${vmwConfig('firmware', machine.firmware === 'uefi' ? 'efi' : 'bios')}
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
`;
}
