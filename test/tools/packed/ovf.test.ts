import { describe, expect, test } from 'vitest';
import { tar, tarHeader } from '../../../fixtures/hostile/packed.ts';
import { bufferSource } from '../../../tools/image-format/reader.ts';
import { parseManifest } from '../../../tools/packed/manifest.ts';
import { parseOvf } from '../../../tools/packed/ovf.ts';
import { unitBytes } from '../../../tools/packed/ovf-units.ts';
import { readTar } from '../../../tools/packed/tar-reader.ts';
import { vmwareOvf } from './package-samples.ts';

/** A descriptor in the words of VirtualBox 7 (OVF 1.0 with its own section). */
const VIRTUALBOX = `<?xml version="1.0"?>
<Envelope ovf:version="1.0" xml:lang="en-US" xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData" xmlns:vbox="http://www.virtualbox.org/ovf/machine">
  <References>
    <File ovf:id="file1" ovf:href="box-disk001.vmdk"/>
    <File ovf:id="file2" ovf:href="box-disk002.vmdk"/>
  </References>
  <DiskSection>
    <Info>List of the virtual disks used in the package</Info>
    <Disk ovf:capacity="21474836480" ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized" vbox:uuid="1"/>
    <Disk ovf:capacity="1073741824" ovf:diskId="vmdisk2" ovf:fileRef="file2" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized" vbox:uuid="2"/>
    <Disk ovf:capacity="1073741824" ovf:diskId="vmdisk3" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
  </DiskSection>
  <VirtualSystem ovf:id="box">
    <Info>A virtual machine</Info>
    <OperatingSystemSection ovf:id="96"><Info>The kind</Info><Description>Debian_64</Description><vbox:OSType ovf:required="false">Debian_64</vbox:OSType></OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>Virtual hardware requirements for a virtual machine</Info>
      <Item><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>1</rasd:VirtualQuantity></Item>
      <Item><rasd:AllocationUnits>MegaBytes</rasd:AllocationUnits><rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>2048</rasd:VirtualQuantity></Item>
      <Item><rasd:Address>0</rasd:Address><rasd:Description>IDE Controller</rasd:Description><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>PIIX4</rasd:ResourceSubType><rasd:ResourceType>5</rasd:ResourceType></Item>
      <Item><rasd:Address>0</rasd:Address><rasd:Description>SATA Controller</rasd:Description><rasd:InstanceID>5</rasd:InstanceID><rasd:ResourceSubType>AHCI</rasd:ResourceSubType><rasd:ResourceType>20</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>1</rasd:AddressOnParent><rasd:HostResource>/disk/vmdisk1</rasd:HostResource><rasd:InstanceID>8</rasd:InstanceID><rasd:Parent>5</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:HostResource>/disk/vmdisk2</rasd:HostResource><rasd:InstanceID>9</rasd:InstanceID><rasd:Parent>5</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
      <Item><rasd:AutomaticAllocation>true</rasd:AutomaticAllocation><rasd:Connection>NAT</rasd:Connection><rasd:InstanceID>10</rasd:InstanceID><rasd:ResourceSubType>E1000</rasd:ResourceSubType><rasd:ResourceType>10</rasd:ResourceType></Item>
    </VirtualHardwareSection>
    <vbox:Machine ovf:required="false" version="1.19-linux" uuid="{x}" name="box"><Hardware><Firmware type="EFI"/></Hardware></vbox:Machine>
  </VirtualSystem>
</Envelope>
`;

describe('OVF descriptors', () => {
  test('as VirtualBox writes them: disks by their address, not by their order', () => {
    const warnings: string[] = [];
    const { disks, machine } = parseOvf('box.ova', Buffer.from(VIRTUALBOX), (text) => warnings.push(text));
    expect(disks).toMatchObject([
      {
        id: 'vmdisk2',
        href: 'box-disk002.vmdk',
        bus: 'sata',
        controller: 0,
        unit: 0,
        capacityBytes: 2 ** 30,
      },
      {
        id: 'vmdisk1',
        href: 'box-disk001.vmdk',
        bus: 'sata',
        unit: 1,
        capacityBytes: 20 * 2 ** 30,
        format: 'vmdk',
      },
    ]);
    expect(machine).toMatchObject({
      name: 'box',
      firmware: 'uefi',
      guestOsId: 'Debian_64',
      cpus: 1,
      memoryBytes: 2 ** 31,
      nics: [{ model: 'E1000', network: 'NAT' }],
      controllers: [
        { bus: 'ide', number: 0, model: 'PIIX4' },
        { bus: 'sata', number: 0, model: 'AHCI' },
      ],
    });
    expect(warnings).toEqual(['disk vmdisk3 is empty in the package; left out']);
  });

  test('ranges and other configurations are not the machine', () => {
    const item = (attributes: string, quantity: number) =>
      `<Item ${attributes}><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>${quantity}</rasd:VirtualQuantity></Item>`;
    const options =
      '<DeploymentOptionSection><Info/><Configuration ovf:id="small"/><Configuration ovf:id="big" ovf:default="true"/></DeploymentOptionSection>';
    const text = vmwareOvf([{ href: 'a.vmdk' }])
      .replace(
        /<Item><rasd:AllocationUnits>hertz.*/,
        `${item('ovf:bound="max"', 64)}${item('ovf:configuration="small"', 2)}${item('ovf:configuration="big"', 16)}`,
      )
      .replace('<VirtualSystem ', `${options}<VirtualSystem `);
    expect(parseOvf('x.ova', Buffer.from(text), () => {}).machine.cpus).toBe(16);
  });

  test.each([
    ['byte', 1],
    ['byte * 2^20', 2 ** 20],
    ['byte*2^30', 2 ** 30],
    ['bytes * 10^9', 1e9],
    ['MegaBytes', 2 ** 20],
    ['GigaBytes', 2 ** 30],
    ['byte * 2^99', undefined],
    ['parsec', undefined],
    ['constructor', undefined],
  ])('unit %s', (unit, bytes) => {
    expect(unitBytes(unit)).toBe(bytes);
  });

  test('manifests as VMware, VirtualBox and people write them', () => {
    const warnings: string[] = [];
    const hex = 'AB'.repeat(20);
    const list = parseManifest(
      `SHA1(a b.vmdk)= ${hex}\r\nSHA1 (x(1).ovf) = ${hex}\nSHA256(y)= ${hex}\nMD5(z)= 00\n\n`,
      (text) => warnings.push(text),
    );
    expect([...list.keys()]).toEqual(['a b.vmdk', 'x(1).ovf']);
    expect(list.get('a b.vmdk')).toEqual([{ algorithm: 'sha1', hex: hex.toLowerCase() }]);
    expect(warnings).toHaveLength(2);
  });
});

describe('members of archives', () => {
  test('larger than 8 GiB', async () => {
    const sizeBytes = 20 * 2 ** 30 + 1000;
    const head = Buffer.concat([
      tar([{ name: 'x.ovf', content: 'x' }], Buffer.alloc(0)),
      tarHeader({ name: 'disk', sizeBytes }),
    ]);
    const end = head.length + Math.ceil(sizeBytes / 512) * 512;
    const source = {
      name: 'big.ova',
      sizeBytes: end + 1024,
      read: async (offset: number, length: number) => {
        const data = Buffer.alloc(Math.max(0, Math.min(length, end + 1024 - offset)));
        if (offset < head.length) head.copy(data, 0, offset);
        return data;
      },
    };
    expect(await readTar(source)).toEqual([
      { name: 'x.ovf', offsetBytes: 512, sizeBytes: 1 },
      { name: 'disk', offsetBytes: 1536, sizeBytes },
    ]);
    await expect(readTar({ ...source, sizeBytes: end - 512 })).rejects.toMatchObject({ code: 'DAMAGED' });
  });

  test('names of all three kinds', async () => {
    const long = `${'n'.repeat(120)}.vmdk`;
    const data = tar([
      { name: 'dir.ovf', prefix: 'a/b', content: '1' },
      { name: '././@LongLink', type: 'L', content: `${long}\0` },
      { name: long.slice(0, 100), content: '2' },
      { name: './', type: '5' },
    ]);
    expect((await readTar(bufferSource(data))).map((m) => m.name)).toEqual(['a/b/dir.ovf', long]);
  });
});
