/** HANDOVER.txt: how to use what lies in the folder, for people. */
import * as path from 'node:path';
import type { DataSetSummary } from '../../core/data-set.ts';
import { formatBytes, GIB } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import type { Artifact } from '../../core/types.ts';
import type { CloudImage } from '../../core/uploader.ts';
import { fileId } from '../../core/work-disks.ts';
import type { GlanceResult } from '../../drivers/openstack/upload/index.ts';
import type { DiskImage } from './glance.ts';
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
  glance?: GlanceResult | undefined;
  /** Images of further disks in Glance. */
  disks?: readonly DiskImage[];
  /** Images in other clouds. */
  images?: readonly CloudImage[];
}

/** A word for a POSIX shell. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
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
  for (const artifact of input.artifacts) {
    if (artifact.disk !== undefined) continue;
    if (artifact.platform === 'openstack') lines.push(...openstackSection(input, artifact));
    if (artifact.platform === 'qemu') lines.push(...qemuSection(input, artifact));
  }
  for (const image of input.images ?? []) lines.push(...cloudSection(image));
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

/** The command that starts an instance of an uploaded image. One line, so that it can be copied. */
export function serverCreate(name: string, glance: GlanceResult, userDataFile: string | undefined): string {
  const userData = userDataFile === undefined ? '' : ` --user-data ${shellWord(userDataFile)}`;
  return `openstack --os-cloud ${shellWord(glance.cloud)} server create --image ${glance.imageId} --flavor FLAVOR --network NETWORK --config-drive True${userData} ${shellWord(name)}`;
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

function glanceSection(input: HandOver, glance: GlanceResult): string[] {
  const { verified, proof, minDisk, minRam } = glance;
  return [
    `OpenStack: the image is in Glance of ${printable(glance.cloud)}`,
    `  id ${glance.imageId}, ${glance.visibility}, ${verified === 'ok' ? `verified (${proof})` : `NOT verified: ${proof}`}`,
    `  ${serverCreate(input.name, glance, input.dataSets.length > 0 ? 'user-data.yaml' : undefined)}`,
    `  The flavor needs a disk of ${minDisk} GiB and ${minRam} MiB of memory. The properties of the image:`,
    ...Object.entries(glance.properties).map(([key, value]) => `    ${key}=${printable(value)}`),
    ...(input.dataSets.length > 0
      ? [
          '  The provision document travels as user data (user-data.yaml), or as port_image in vendor_data2.json where the',
          '  cloud has dynamic vendor data. Merge write_files into user data of your own.',
        ]
      : []),
    '',
  ];
}

function cloudSection(image: CloudImage): string[] {
  return [
    `${image.platform}: the image is in ${printable(image.place)}`,
    `  ${printable(image.id)}, ${image.content === 'ok' ? `verified (${printable(image.proof)})` : `NOT verified: ${printable(image.proof)}`}`,
    ...Object.entries(image.details).map(([key, value]) => `    ${printable(key)}: ${printable(value)}`),
    ...image.disks.map((d) => `  disk ${printable(d.disk)}: ${printable(d.id)}`),
    `  ${printable(image.start)}`,
    '',
  ];
}

function openstackSection(input: HandOver, artifact: Artifact): string[] {
  const { name, firmware, minDiskGib, glance } = input;
  if (glance !== undefined) return glanceSection(input, glance);
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
function diskSection({ name, artifacts, disks = [], glance }: HandOver): string[] {
  const further = artifacts.filter((a) => a.disk !== undefined);
  if (further.length === 0) return [];
  const lines = [
    'Further disks, each an image of its own; attach them and the guest mounts what is on them:',
  ];
  const cloud = glance === undefined ? '' : ` --os-cloud ${shellWord(glance.cloud)}`;
  for (const artifact of further) {
    const file = path.basename(artifact.path);
    if (artifact.platform === 'qemu') {
      lines.push(`  libvirt: one more  --disk ${shellWord(file)},bus=virtio`);
    }
    if (artifact.platform !== 'openstack') continue;
    const image = disks.find((d) => d.disk === artifact.disk);
    const volume = shellWord(`${name}-${fileId(artifact.disk ?? '')}`);
    const size = Math.max(1, Math.ceil(artifact.virtualBytes / GIB));
    if (image === undefined) {
      lines.push(
        `  openstack${cloud} image create --disk-format ${artifact.format} --container-format bare --min-disk ${size} --file ${shellWord(file)} ${volume}`,
      );
    }
    lines.push(
      `  openstack${cloud} volume create --image ${image?.imageId ?? volume} --size ${size} ${volume}`,
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
