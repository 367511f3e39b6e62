/** The facts in a few lines for people. */
import type { Facts } from '../../core/facts.ts';
import { formatBytes } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import { badRangeText } from './bad-ranges.ts';

/** Lines `inspect` prints. Text of the guest is made safe to print. */
export function summarize(facts: Facts): string[] {
  const { os, bootloader, network } = facts;
  const lines = [
    `system       ${os.productName || os.distro} (${os.arch}, ${os.init}), host ${os.hostname || '?'}`,
    `firmware     ${facts.firmware}, bootloader ${bootloader.kind}${
      facts.firmware === 'uefi'
        ? `, fallback loader ${bootloader.fallbackLoader ? 'present' : 'missing'}`
        : ''
    }`,
  ];
  for (const [i, disk] of facts.disks.entries()) {
    const boots = i === facts.bootDisk ? ', starts the system' : '';
    const role = facts.disks.length === 1 ? '' : `, ${disk.id}: ${disk.use}${boots}`;
    lines.push(
      `disk         ${disk.path}: ${disk.format}, ${formatBytes(disk.virtualBytes)}, ${disk.table}, ${disk.partitions.length} partitions${role}`,
    );
  }
  if (facts.badRanges.length > 0) lines.push(`bad          ${badRangeText(facts.badRanges)}`);
  for (const group of facts.volumeGroups) {
    lines.push(
      `volumes      ${group.name}: ${group.logicalVolumes.map((l) => `${l.name} ${formatBytes(l.sizeBytes)}`).join(', ')}`,
    );
  }
  for (const fs of facts.filesystems) {
    const mount = facts.mounts.find((m) => m.device === fs.device);
    const used = fs.usedBytes === undefined ? '' : `, ${formatBytes(fs.usedBytes)} used`;
    const dirty = fs.dirty === true ? ', was not unmounted cleanly' : '';
    lines.push(
      `file system  ${fs.device}: ${fs.type}, ${formatBytes(fs.sizeBytes)}${used}${mount === undefined ? '' : `, at ${mount.path}`}${dirty}`,
    );
  }
  for (const kernel of facts.kernels) {
    const marks = [kernel.isDefault ? 'default' : '', kernel.inBootMenu ? '' : 'not in the boot menu'].filter(
      Boolean,
    );
    lines.push(
      `kernel       ${kernel.version}${marks.length === 0 ? '' : ` (${marks.join(', ')})`}, initramfs ${
        kernel.initramfs === undefined ? 'missing' : `with ${kernel.initramfsModules.length} modules`
      }`,
    );
  }
  lines.push(`network      ${network.systems.join(', ') || 'not configured'}`);
  for (const item of network.interfaces) {
    if (item.method === 'loopback') continue;
    const parts = [
      item.method,
      ...item.addresses,
      ...item.gateways.map((g) => `gateway ${g}`),
      ...(item.mac === undefined ? [] : [`MAC ${item.mac}`]),
    ];
    lines.push(`interface    ${item.name}: ${parts.join(', ')}`);
  }
  if (facts.agents.length > 0) {
    lines.push(
      `agents       ${facts.agents.map((a) => `${a.package ?? a.path} (${a.platform})`).join(', ')}`,
    );
  }
  const humans = facts.users.filter((u) => u.human);
  lines.push(
    `users        ${humans.map((u) => `${u.name} (${u.authorizedKeys} keys)`).join(', ') || 'none'}`,
  );
  lines.push(
    `packages     ${facts.packages.length}; ${facts.services.filter((s) => s.enabled).length} units enabled`,
  );
  for (const candidate of facts.candidates) {
    lines.push(
      `data         ${candidate.path}: ${formatBytes(candidate.bytes)}, ${candidate.files} files, ${candidate.reason}; needed by ${candidate.neededBy.join(', ')}`,
    );
  }
  return lines.map(printable);
}
