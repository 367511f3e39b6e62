/** The end of a conversion, for people. */
import type { PassRecord } from '../core/capture-pass.ts';
import { formatBytes, formatSeconds } from '../core/sizes.ts';
import { printable } from '../core/text.ts';
import type { Summary } from '../pipeline/summary.ts';
import { out } from './output.ts';
import { platformTable } from './platform-table.ts';

/** Prints what was found, changed and stripped, sizes, times, proof and paths. */
export function printSummary(summary: Summary): void {
  const { source, guest } = summary;
  const row = (label: string, text: string): void => out(`${label.padEnd(12)}${text}`);
  out('');
  row(
    'source',
    `${printable(source.path)}  ${formatBytes(source.virtualBytes)} disk, ${sourceState(summary)}`,
  );
  for (const pass of summary.capture?.passes ?? []) row('pass', passText(pass));
  if (summary.disks.length > 1) {
    for (const disk of summary.disks) {
      const boots = disk.boots ? ', starts the system' : '';
      row(
        'disk',
        `${printable(disk.id)}: ${disk.use ?? 'not looked at'}${boots}  ${formatBytes(disk.virtualBytes)}`,
      );
    }
  }
  if (guest !== null) row('found', `${guest.hostname}: ${guest.distro} ${guest.version}, ${guest.firmware}`);
  row('changed', `${summary.changes} things inside the guest, each listed in the report`);
  for (const set of summary.dataSets) {
    row(
      'stripped',
      `${set.path}  ${formatBytes(set.bytes)} in ${set.files} files → ${formatBytes(set.storedBytes)}  ${set.store}/${set.id}`,
    );
  }
  for (const output of summary.outputs) {
    const disk = output.disk === undefined ? '' : ` disk ${printable(output.disk)}`;
    row('image', `${output.platform}${disk}: ${output.path}  ${output.format}, ${formatBytes(output.bytes)}`);
    if (output.disk !== undefined) continue; // proven with the image it belongs to
    const failed = output.verification.filter((c) => !c.ok);
    if (output.verification.length === 0) row('verified', 'no: it was not booted');
    else if (output.verified) row('verified', `yes: booted, ${output.verification.length} checks passed`);
    else row('verified', `NO: ${failed.map((c) => printable(c.name)).join(', ')}`);
  }
  for (const image of summary.cloudImages) {
    const { platform, place, id, bytes, method, content, proof } = image;
    row(
      'uploaded',
      `${platform}: ${printable(id)} in ${printable(place)}  ${formatBytes(bytes)} by ${method}`,
    );
    row(
      '',
      content === 'ok'
        ? `content verified: ${printable(proof)}`
        : `content UNVERIFIABLE: ${printable(proof)}`,
    );
    for (const old of image.replaced) row('', `older image ${printable(old.id)} ${old.action}`);
  }
  row('stages', summary.stages.map((s) => `${s.name} ${formatSeconds(s.seconds)}`).join(', '));
  row(
    'cost',
    `${summary.applianceLaunches} appliance launch${summary.applianceLaunches === 1 ? '' : 'es'}, ${formatBytes(summary.peakRssBytes)} memory`,
  );
  for (const text of summary.warnings) row('warning', printable(text));
  row('job', summary.job);
  if (summary.report !== null) row('report', summary.report);
  const table = platformTable(summary);
  if (table.length > 0) out('');
  for (const line of table) out(line);
  const starts = summary.cloudImages.map((image) => printable(image.start));
  if (starts.length > 0) {
    out('');
    out('Start an instance:');
    for (const start of starts) out(`  ${start}`);
  }
}

/** One pass over a disk in one line. */
export function passText(pass: PassRecord): string {
  const still = pass.frozenMs === undefined ? '' : `, stood still ${formatSeconds(pass.frozenMs / 1000)}`;
  const name = pass.final ? `${pass.number} (last)` : String(pass.number);
  return `${name} over ${printable(pass.disk)}: ${formatBytes(pass.allocatedBytes)} in use, ${formatBytes(pass.sentBytes)} new, ${formatBytes(pass.wireBytes)} on the wire, ${formatSeconds(pass.seconds)}${still}`;
}

function sourceState({ source, capture }: Summary): string {
  if (capture !== null && capture.passes.length > 0) return `copied, ${capture.consistency}`;
  return unchanged(source.sha256Unchanged);
}

function unchanged(value: boolean | null): string {
  return value === null ? 'not checked to the end' : value ? 'sha256 unchanged' : 'CHANGED';
}
