/** One pass over a disk of a source that is somewhere else or in use. */
import * as z from 'zod';
import { CONSISTENCIES } from './types.ts';

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
