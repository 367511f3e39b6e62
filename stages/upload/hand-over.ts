/** HANDOVER.txt: how to use what lies in the folder, for people. */
import * as path from 'node:path';
import type { DataSetSummary } from '../../core/data-set.ts';
import { shellWord } from '../../core/shell-word.ts';
import { formatBytes, GIB } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import type { Artifact } from '../../core/types.ts';
import type { CloudImage } from '../../core/uploader.ts';
import { fileId } from '../../core/work-disks.ts';
import type { Provisioning } from './provision.ts';

/** What the text is made of. */
export interface HandOver {
  name: string;
  store: string;
  firmware: 'bios' | 'uefi';
  artifacts: readonly Artifact[];
  dataSets: readonly Pick<DataSetSummary, 'id' | 'path' | 'bytes' | 'mode'>[];
  minDiskGib: number;
  hasNetworkData: boolean;
  provisioning?: Provisioning;
  /** Images registered in clouds. */
  images?: readonly CloudImage[];
}

/** The text. Commands use only names of ours and numbers; guest text stands in quotes or not at all. */
export function handOver(input: HandOver): string {
  const lines: string[] = [`${input.name}: what is here and how to start it`, ''];
  for (const artifact of input.artifacts) {
    const disk = artifact.disk === undefined ? '' : `, disk ${printable(artifact.disk)}`;
    lines.push(
      `  ${path.basename(artifact.path)}  ${artifact.format}, ${formatBytes(artifact.bytes)}, for ${artifact.platform}${disk}`,
    );
  }
  lines.push('', 'Check the copy first:  sha256sum -c SHA256SUMS', '');
  if (input.dataSets.length > 0) lines.push(...dataSection(input));
  const registered = new Set(input.images?.map((i) => i.platform));
  for (const artifact of input.artifacts) {
    if (artifact.disk !== undefined || registered.has(artifact.platform)) continue;
    if (artifact.platform === 'openstack') lines.push(...openstackSection(input, artifact));
    if (artifact.platform === 'qemu') lines.push(...qemuSection(input, artifact));
  }
  for (const image of input.images ?? []) lines.push(...cloudSection(input, image));
  lines.push(...diskSection(input));
  if (input.hasNetworkData) {
    lines.push(
      'The source had fixed addresses; network_data.json describes them in the form of a config drive.',
      'The image itself uses DHCP.',
      '',
    );
  }
  return `${lines.join('\n').trimEnd()}\n`;
}

function dataSection({ dataSets, store, provisioning }: HandOver): string[] {
  const sets = dataSets.map((d) => `  ${d.id}  ${formatBytes(d.bytes)}  ${printable(d.path)}  (${d.mode})`);
  if (provisioning?.signed === true) {
    return [
      'Data that is not in the image:',
      ...sets,
      `It lies in ${printable(store)}. provision.json, vendor-data.json and user-data.yaml hold signed URLs that open it`,
      `to whoever has them${provisioning.expires === undefined ? '' : ` until ${provisioning.expires}`}: keep them secret. Later:`,
      '  port-image data mint   makes new ones',
      '  port-image data revoke makes all of them worthless',
      '',
    ];
  }
  return [
    'Data that is not in the image:',
    ...sets,
    `It lies in ${printable(store)}. The instance fetches it over HTTP: make each folder readable at a URL,`,
    'put the URLs into provision.json (value) or vendor-data.json (as the cloud answers it).',
    '',
  ];
}

function cloudSection({ dataSets }: HandOver, image: CloudImage): string[] {
  return [
    `${image.platform}: the image is in ${printable(image.place)}`,
    `  ${printable(image.id)}, ${image.content === 'ok' ? `verified (${printable(image.proof)})` : `NOT verified: ${printable(image.proof)}`}`,
    ...Object.entries(image.details).map(([key, value]) => `    ${printable(key)}: ${printable(value)}`),
    ...image.disks.map((d) => `  disk ${printable(d.disk)}: ${printable(d.id)}`),
    `  ${printable(image.start)}`,
    ...(dataSets.length > 0
      ? [
          '  The provision document travels as user data (user-data.yaml), or as vendor data where the cloud has such.',
          '  Merge write_files into user data of your own.',
        ]
      : []),
    '',
  ];
}

function openstackSection(input: HandOver, artifact: Artifact): string[] {
  const { name, firmware, minDiskGib } = input;
  const uefi = firmware === 'uefi' ? ' --property hw_firmware_type=uefi --property hw_machine_type=q35' : '';
  return [
    'OpenStack:',
    `  openstack image create --disk-format ${artifact.format} --container-format bare --min-disk ${minDiskGib} \\`,
    `    --property hw_qemu_guest_agent=yes --property img_config_drive=mandatory${uefi} \\`,
    `    --file ${shellWord(path.basename(artifact.path))} ${shellWord(name)}`,
    `  openstack server create --image ${shellWord(name)} --flavor FLAVOR --network NETWORK --config-drive True ${shellWord(name)}`,
    '  The provision document reaches the instance as port_image in vendor_data2.json: name a dynamic vendor data',
    '  target port_image in nova.conf ([api] vendordata_providers, vendordata_dynamic_targets) that answers with it.',
    '',
  ];
}

/** How the images of further disks come to the instance. */
function diskSection({ name, artifacts, images = [] }: HandOver): string[] {
  const further = artifacts.filter((a) => a.disk !== undefined);
  if (further.length === 0) return [];
  const lines = [
    'Further disks, each an image of its own; attach them and the guest mounts what is on them:',
  ];
  const registered = images.find((i) => i.platform === 'openstack');
  const cloud = registered === undefined ? '' : ` --os-cloud ${shellWord(registered.place)}`;
  for (const artifact of further) {
    const file = path.basename(artifact.path);
    if (artifact.platform === 'qemu') {
      lines.push(`  libvirt: one more  --disk ${shellWord(file)},bus=virtio`);
    }
    if (artifact.platform !== 'openstack') continue;
    const image = registered?.disks.find((d) => d.disk === artifact.disk);
    const volume = shellWord(`${name}-${fileId(artifact.disk ?? '')}`);
    const size = Math.max(1, Math.ceil(artifact.virtualBytes / GIB));
    if (image === undefined) {
      lines.push(
        `  openstack${cloud} image create --disk-format ${artifact.format} --container-format bare --min-disk ${size} --file ${shellWord(file)} ${volume}`,
      );
    }
    lines.push(
      `  openstack${cloud} volume create --image ${image?.id ?? volume} --size ${size} ${volume}`,
      `  openstack${cloud} server add volume ${shellWord(name)} ${volume}`,
    );
  }
  return [...lines, ''];
}

function qemuSection({ firmware }: HandOver, artifact: Artifact): string[] {
  const uefi = firmware === 'uefi' ? ' --boot uefi' : '';
  return [
    'libvirt:',
    `  virt-install --import --memory 2048 --vcpus 2 --osinfo detect=on,require=off${uefi} \\`,
    `    --disk ${shellWord(path.basename(artifact.path))},bus=virtio --disk seed.iso,device=cdrom --network network=default,model=virtio`,
    '  seed.iso has the label cidata and the files meta-data (instance-id, local-hostname, port_image) and user-data.',
    '',
  ];
}
