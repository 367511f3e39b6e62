/**
 * What a source answers is checked before it is believed: it may be damaged on its way, or come from a program gone
 * mad.
 */
import { createHash } from 'node:crypto';
import { BLOCK_BYTES, type BlockAnswer, type ByteRange, type WantedBlock } from '../../core/disk-source.ts';
import { PortError } from '../../core/errors.ts';
import { zeroSum } from '../../tools/disk-copy/index.ts';

/** A block has 8192 sectors; no more of them can be bad. */
const MOST_BAD_PARTS = BLOCK_BYTES / 512;

function badFits(bad: readonly ByteRange[], lengthBytes: number): boolean {
  let end = 0;
  for (const range of bad) {
    if (range.startBytes < end || range.lengthBytes <= 0) return false;
    end = range.startBytes + range.lengthBytes;
  }
  return end <= lengthBytes && bad.length <= MOST_BAD_PARTS;
}

/** True when the answer is whole: its sum is that of its bytes, or of what is here already. */
export function isWhole(answer: BlockAnswer, wanted: WantedBlock): boolean {
  const { kind, data, sha256 } = answer;
  if (kind === 'zero') return sha256.equals(zeroSum(wanted.lengthBytes));
  if (kind === 'same') return wanted.known?.equals(sha256) === true;
  if (data?.length !== wanted.lengthBytes) return false;
  return createHash('sha256').update(data).digest().equals(sha256);
}

/** True when this answers the block that was asked for. */
export function isAnswerTo(answer: BlockAnswer, wanted: WantedBlock): boolean {
  return answer.index === wanted.index && badFits(answer.bad, wanted.lengthBytes);
}

/** The failure for an answer to something else. */
export function notAsked(name: string, index: number): PortError {
  return new PortError('SOURCE_REMOTE', `${name} answered what it was not asked: block ${index}`, {
    hint: 'check the connection and the program on the other side',
  });
}
