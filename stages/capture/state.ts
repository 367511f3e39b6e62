/** `capture/capture.json`: what was copied from a source that is somewhere else or in use, pass by pass. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import * as z from 'zod';
import { PassRecord } from '../../core/capture-pass.ts';
import { PortError } from '../../core/errors.ts';
import { writeJson } from '../../core/files.ts';
import { Inventory } from '../../core/inventory.ts';
import { printable } from '../../core/text.ts';

/** What the folder holds. */
export const CaptureState = z.object({
  schema: z.literal('port-image/capture/1'),
  source: z.string().describe('as in the request'),
  disks: z.array(z.object({ id: z.string(), device: z.string(), sizeBytes: z.number() })),
  skipped: z.array(z.string()).optional().describe('ids of disks of the source that were left out'),
  inventory: Inventory.optional().describe('of the machine, read at the last pass'),
  passes: z.array(PassRecord).describe('finished passes, oldest first'),
  underWay: z
    .boolean()
    .optional()
    .describe('a pass began after the last finished one and did not end: the copy is a mix of both'),
});
/** What the folder holds. */
export type CaptureState = z.infer<typeof CaptureState>;

const stateFile = (dir: string): string => path.join(dir, 'capture.json');

/** The state of a capture folder; undefined when nothing was captured yet. Throws JOB_TAMPERED, JOB_MISMATCH. */
export async function readState(dir: string, source: string): Promise<CaptureState | undefined> {
  let text: string;
  try {
    text = await fs.readFile(stateFile(dir), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  let state: CaptureState;
  try {
    state = CaptureState.parse(JSON.parse(text));
  } catch (cause) {
    throw new PortError('JOB_TAMPERED', `${printable(stateFile(dir))} is not what this program wrote`, {
      cause,
    });
  }
  if (state.source !== source) {
    throw new PortError('JOB_MISMATCH', `${printable(dir)} holds a copy of ${printable(state.source)}`, {
      hint: 'choose another --job for this source',
    });
  }
  return state;
}

/** Writes the state, whole or not at all. */
export async function writeState(dir: string, state: CaptureState): Promise<void> {
  await writeJson(stateFile(dir), state);
}

/** Last finished pass over a disk. */
export function lastPass(state: CaptureState | undefined, disk: string): PassRecord | undefined {
  return state?.passes.findLast((p) => p.disk === disk);
}
