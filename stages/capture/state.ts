/** `capture/capture.json`: what was copied from a source that is somewhere else or in use, pass by pass. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import { writeJson } from '../../core/files.ts';
import { Inventory } from '../../core/inventory.ts';
import { printable } from '../../core/text.ts';
import { CONSISTENCIES } from '../../core/types.ts';

const ByteRange = z.object({ startBytes: z.number(), lengthBytes: z.number() });

/** One pass over one disk. */
export const PassRecord = z.object({
  number: z.number().describe('1 for the first pass over this disk'),
  disk: z.string(),
  final: z.boolean().describe('made while the source held still, or by its nature the last one'),
  consistency: z.enum(CONSISTENCIES).describe('of the copy as this pass left it'),
  startedAt: z.string().describe('ISO 8601, UTC'),
  seconds: z.number(),
  diskBytes: z.number(),
  allocatedBytes: z.number().describe('in use by the file systems; only these are read'),
  sentBytes: z.number().describe('content that was new, before compression'),
  wireBytes: z.number().describe('what travelled, with compression and framing'),
  changedBlocks: z.number(),
  sameBlocks: z.number(),
  zeroBlocks: z.number(),
  badRanges: z.array(ByteRange).describe('offsets on the disk that could not be read'),
  reconnects: z.number(),
  frozenMs: z.number().optional().describe('how long the file systems of the source stood still'),
  treeSha256: z.string().describe('sha256 over the sha256 of all blocks of the copy, in order'),
});
/** One pass over one disk. */
export type PassRecord = z.infer<typeof PassRecord>;

/** What the folder holds. */
export const CaptureState = z.object({
  schema: z.literal('port-image/capture/1'),
  source: z.string().describe('as in the request'),
  disks: z.array(z.object({ id: z.string(), device: z.string(), sizeBytes: z.number() })),
  inventory: Inventory.optional().describe('of the machine, read at the last pass'),
  passes: z.array(PassRecord).describe('finished passes, oldest first'),
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
