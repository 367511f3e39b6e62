/** Gathers what the report shows from the job folder and writes the page. */
import * as fs from 'node:fs/promises';
import { Facts } from '../../core/facts.ts';
import { writeFileAtomic } from '../../core/files.ts';
import type { Change, JobPaths } from '../../core/stage.ts';
import type { Verification } from '../../core/types.ts';
import type { Summary } from '../summary.ts';
import { renderReport } from './page.ts';

const SERIAL_TAIL_BYTES = 8192;

/** Writes `report.html`. */
export async function writeReport(
  paths: JobPaths,
  summary: Summary,
  changes: readonly Change[],
  verifications: readonly Verification[],
): Promise<void> {
  const screenshots = new Map<string, Buffer>();
  const serialTails = new Map<string, string>();
  for (const { platform, screenshot, serialLog } of verifications) {
    const picture =
      screenshot === undefined ? undefined : await fs.readFile(screenshot).catch(() => undefined);
    if (picture !== undefined) screenshots.set(platform, picture);
    const serial = await fs.readFile(serialLog).catch(() => undefined);
    if (serial !== undefined) serialTails.set(platform, serial.subarray(-SERIAL_TAIL_BYTES).toString('utf8'));
  }
  const facts = await fs
    .readFile(paths.facts, 'utf8')
    .then((text) => Facts.parse(JSON.parse(text)))
    .catch(() => undefined);
  await writeFileAtomic(paths.report, renderReport({ summary, facts, changes, screenshots, serialTails }));
}
