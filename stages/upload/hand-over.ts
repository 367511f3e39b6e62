/** HANDOVER.txt: how to use what lies in the folder, for people. */
import * as path from 'node:path';
import type { DataSetSummary } from '../../core/data-set.ts';
import { formatBytes, GIB } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import type { Artifact } from '../../core/types.ts';
import type { CloudImage } from '../../core/uploader.ts';
import { fileId } from '../../core/work-disks.ts';
import { CLOUD_HAND_OVERS } from './hand-over-clouds.ts';
import { HYPERVISOR_HAND_OVERS } from './hand-over-hypervisors.ts';
import type { HandOverFile, PlatformHandOver } from './hand-over-types.ts';
import type { Provisioning } from './provision.ts';

/** What the text is made of. */
export interface HandOver {
  name: string;
  store: string;
  firmware: 'bios' | 'uefi';
  /** Of the guest, as `uname -m` says. */
  arch: string;
  artifacts: readonly Artifact[];
  dataSets: readonly Pick<DataSetSummary, 'id' | 'path' | 'bytes' | 'mode'>[];
  hasNetworkData: boolean;
  provisioning?: Provisioning;
  /** Images registered in clouds. */
  images?: readonly CloudImage[];
}

/** What is known of handing files to each platform. */
export const HAND_OVERS: Readonly<Record<string, PlatformHandOver>> = {
  ...CLOUD_HAND_OVERS,
  ...HYPERVISOR_HAND_OVERS,
};

function fileOf(input: HandOver, artifact: Artifact): HandOverFile {
  return {
    name: input.name,
    file: path.basename(artifact.path),
    format: artifact.format,
    bytes: artifact.bytes,
    virtualBytes: artifact.virtualBytes,
    gib: Math.max(1, Math.ceil(artifact.virtualBytes / GIB)),
    firmware: input.firmware,
    arch: input.arch,
    hasData: input.dataSets.length > 0,
  };
}

/** Scripts that go beside the images, by name. */
export function handOverScripts(input: HandOver): { name: string; text: string }[] {
  return input.artifacts.flatMap((artifact) =>
    artifact.disk === undefined
      ? (HAND_OVERS[artifact.platform]?.scripts?.(fileOf(input, artifact)) ?? [])
      : [],
  );
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
    const known = HAND_OVERS[artifact.platform];
    if (known === undefined) continue;
    lines.push(`${known.title}:`, ...known.commands(fileOf(input, artifact)).map((line) => `  ${line}`), '');
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

/** How the images of further disks come to the instance. */
function diskSection({ name, artifacts, images = [] }: HandOver): string[] {
  const further = artifacts.filter((a) => a.disk !== undefined);
  if (further.length === 0) return [];
  const lines = [
    'Further disks, each an image of its own; attach them and the guest mounts what is on them:',
  ];
  for (const artifact of further) {
    const image = images.find((i) => i.platform === artifact.platform);
    const registered = image?.disks.find((d) => d.disk === artifact.disk);
    const file = path.basename(artifact.path);
    const commands = HAND_OVERS[artifact.platform]?.further?.(name, {
      artifact,
      file,
      name: `${name}-${fileId(artifact.disk ?? '')}`,
      gib: Math.max(1, Math.ceil(artifact.virtualBytes / GIB)),
      registered:
        image === undefined || registered === undefined
          ? undefined
          : { place: image.place, id: registered.id },
      place: image?.place,
    });
    lines.push(...(commands ?? [`${artifact.platform}: ${printable(file)}`]).map((line) => `  ${line}`));
  }
  return [...lines, ''];
}
