/** What became of each platform, one line for each: the end of a conversion for several. */
import { formatBytes } from '../core/sizes.ts';
import { printable } from '../core/text.ts';
import type { Summary } from '../pipeline/summary.ts';
import { type Column, tableLines } from './table.ts';

type Output = Summary['outputs'][number];

/** How the image was proven: `booted 5, listed 3, 1 not proven`, `not booted`, or `FAILED: ` and what failed. */
export function proofText({ verification, claims }: Pick<Output, 'verification' | 'claims'>): string {
  const failed = [
    ...verification.filter((c) => !c.ok).map((c) => c.name),
    ...claims.filter((c) => c.proof === 'missing').map((c) => c.name),
  ];
  if (failed.length > 0) return `FAILED: ${failed.map((name) => printable(name)).join(', ')}`;
  if (verification.length === 0) return 'not booted';
  const count = (proof: string): number => claims.filter((c) => c.proof === proof).length;
  const parts = [
    ...(count('booted') > 0 ? [`booted ${count('booted')}`] : []),
    ...(count('listed') > 0 ? [`listed ${count('listed')}`] : []),
    ...(count('unproven') > 0 ? [`${count('unproven')} not proven`] : []),
  ];
  // jobs of older versions have checks without claims
  return parts.length > 0 ? parts.join(', ') : `booted, ${verification.length} checks`;
}

/** Lines of the table; none for fewer than two platforms. `width` as in `tableLines`. */
export function platformTable(
  { outputs, cloudImages }: Pick<Summary, 'outputs' | 'cloudImages'>,
  width?: number,
): string[] {
  // further disks are proven and registered with the one that starts the system
  const rows = outputs.filter((o) => o.disk === undefined);
  if (rows.length < 2) return [];
  const cloud = (o: Output) => cloudImages.find((image) => image.platform === o.platform);
  const columns: Column<Output>[] = [
    { title: 'platform', value: (o) => o.platform },
    {
      title: 'image',
      value: (o) =>
        `${o.format}${o.container === undefined ? '' : ` in ${o.container}`}, ${formatBytes(o.bytes)}`,
    },
    { title: 'compared', value: (o) => (o.compared ? 'yes' : 'no') },
    { title: 'proof', value: proofText },
    { title: 'uploaded to', value: (o) => cloud(o)?.place ?? '-', optional: true },
    { title: 'registered as', value: (o) => cloud(o)?.id ?? '-', shrinks: true },
  ];
  return tableLines(rows, columns, ...(width === undefined ? [] : [width]));
}
