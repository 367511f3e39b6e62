import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PortError } from '../../../core/errors.ts';
import {
  encodeFrame,
  FrameDecoder,
  findMark,
  MAX_HEADER_BYTES,
  MAX_PAYLOAD_BYTES,
} from '../../../tools/source-machine/frames.ts';

/** The bytes in pieces, cut at the given places. */
function pieces(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const places = [...new Set([0, ...cuts.map((c) => c % (bytes.length + 1)), bytes.length])].sort(
    (a, b) => a - b,
  );
  return places.slice(1).map((end, i) => bytes.subarray(places[i], end));
}

const frame = fc.record({
  fields: fc.array(fc.tuple(fc.stringMatching(/^[a-z]{1,8}$/), fc.string({ unit: 'grapheme' })), {
    maxLength: 6,
  }),
  payload: fc.uint8Array({ maxLength: 2_000 }).map((b) => Buffer.from(b)),
});

describe('frames', () => {
  test('come out as they went in, wherever the stream is cut', () => {
    fc.assert(
      fc.property(
        fc.array(frame, { maxLength: 8 }),
        fc.array(fc.nat(), { maxLength: 40 }),
        (frames, cuts) => {
          const bytes = Buffer.concat(frames.map((f) => encodeFrame(f.fields, f.payload)));
          const decoder = new FrameDecoder();
          const out = pieces(bytes, cuts).flatMap((piece) => [...decoder.push(piece)]);
          expect(out.map((f) => ({ fields: [...f.fields], payload: Buffer.from(f.payload) }))).toEqual(
            frames,
          );
        },
      ),
      { numRuns: 500 },
    );
  });

  test('any bytes give frames within the limits or an error, never more memory', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), fc.array(fc.nat(), { maxLength: 10 }), (bytes, cuts) => {
        let taken = 0;
        const decoder = new FrameDecoder((n) => {
          taken = Math.max(taken, n);
          return Buffer.allocUnsafe(n);
        });
        try {
          for (const piece of pieces(Buffer.from(bytes), cuts))
            for (const out of decoder.push(piece)) expect(out).toBeDefined();
        } catch (error) {
          expect(error).toBeInstanceOf(PortError);
          expect((error as PortError).code).toBe('SOURCE_REMOTE');
        }
        expect(taken).toBeLessThanOrEqual(MAX_PAYLOAD_BYTES);
      }),
      { numRuns: 2_000 },
    );
  });

  test.each([
    [MAX_HEADER_BYTES + 1, 0],
    [0, MAX_PAYLOAD_BYTES + 1],
    [0xffffffff, 0xffffffff],
  ])('lengths of %i and %i are refused before memory is taken', (header, payload) => {
    const lengths = Buffer.alloc(8);
    lengths.writeUInt32BE(header, 0);
    lengths.writeUInt32BE(payload, 4);
    const decoder = new FrameDecoder(() => {
      throw new Error('memory was taken');
    });
    expect(() => [...decoder.push(lengths)]).toThrow('not the protocol');
  });

  test('what the other side would refuse is not sent', () => {
    expect(() => encodeFrame([['p', 'x'.repeat(MAX_HEADER_BYTES)]])).toThrow(PortError);
  });
});

describe('the mark', () => {
  test('is found in any noise, but only as a whole line of its own', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.uint8Array({ maxLength: 50 }), (before, after) => {
        const noise = Buffer.from(before);
        const bytes = Buffer.concat([noise, Buffer.from('\n@port-image 5e1f python\n'), Buffer.from(after)]);
        expect(findMark(bytes, '@port-image 5e1f')).toEqual({ word: 'python', rest: Buffer.from(after) });
        expect(findMark(bytes.subarray(0, noise.length + 20), '@port-image 5e1f')).toBeUndefined();
      }),
    );
    expect(findMark(Buffer.from('echo @port-image 5e1f python\n'), '@port-image 5e1f')).toBeUndefined();
    expect(findMark(Buffer.from('\n@port-image ffff python\n'), '@port-image 5e1f')).toBeUndefined();
  });
});
