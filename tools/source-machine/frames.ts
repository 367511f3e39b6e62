/** The protocol between this program and its helper: frames of a form-encoded header and a payload of bytes. */
import { PortError } from '../../core/errors.ts';

/** Version of the protocol; the helper says the same in its first frame. */
export const PROTOCOL_VERSION = 1;

/** Longest header: the parts of the most fragmented block (4 MiB in 512 byte steps) fit. As in the helper. */
export const MAX_HEADER_BYTES = 256 * 1024;

/** Longest payload: a block, with room for the answer of a command. As in the helper. */
export const MAX_PAYLOAD_BYTES = 8 * 1024 * 1024;

/** Lengths of header and payload, 32 bit big-endian each. */
const LENGTHS_BYTES = 8;

/** Fields of a frame, in order; a name may come several times. */
export type Fields = readonly (readonly [string, string | number])[];

/** A frame as it came. */
export interface Frame {
  fields: URLSearchParams;
  payload: Buffer;
}

/** A frame as bytes. Throws BUG when it is larger than the other side takes. */
export function encodeFrame(fields: Fields, payload: Buffer = Buffer.alloc(0)): Buffer {
  // %20 for a blank: perl's side knows nothing of plus signs
  const text = fields.map(([k, v]) => `${k}=${encodeURIComponent(v)}`).join('&');
  const header = Buffer.from(text, 'ascii');
  if (header.length > MAX_HEADER_BYTES || payload.length > MAX_PAYLOAD_BYTES) {
    throw new PortError('BUG', `a frame of ${header.length} + ${payload.length} bytes is too large`);
  }
  const lengths = Buffer.alloc(LENGTHS_BYTES);
  lengths.writeUInt32BE(header.length, 0);
  lengths.writeUInt32BE(payload.length, 4);
  return Buffer.concat([lengths, header, payload]);
}

/** A piece of a frame that is being filled. */
interface Filling {
  bytes: Buffer;
  filled: number;
}

/** Turns a stream of bytes, cut anywhere, into frames. */
export class FrameDecoder {
  private readonly takeBuffer: (lengthBytes: number) => Buffer;
  private lengths: Filling = { bytes: Buffer.alloc(LENGTHS_BYTES), filled: 0 };
  private header: Filling | undefined;
  private payload: Filling | undefined;

  /** `takeBuffer` gives the memory of a payload. */
  constructor(takeBuffer: (lengthBytes: number) => Buffer = (n) => Buffer.allocUnsafe(n)) {
    this.takeBuffer = takeBuffer;
  }

  /** Frames that these bytes complete. Throws SOURCE_REMOTE for lengths no honest helper sends; unusable afterwards. */
  *push(chunk: Buffer): Generator<Frame> {
    let at = 0;
    const fill = (piece: Filling): boolean => {
      const taken = chunk.copy(piece.bytes, piece.filled, at);
      piece.filled += taken;
      at += taken;
      return piece.filled === piece.bytes.length;
    };
    for (;;) {
      if (this.header === undefined || this.payload === undefined) {
        if (!fill(this.lengths)) return;
        const headerBytes = this.lengths.bytes.readUInt32BE(0);
        const payloadBytes = this.lengths.bytes.readUInt32BE(4);
        if (headerBytes > MAX_HEADER_BYTES || payloadBytes > MAX_PAYLOAD_BYTES) {
          throw new PortError('SOURCE_REMOTE', 'what comes from the source machine is not the protocol', {
            hint: 'something on the machine writes into the output of commands (profile, wrapper, proxy)',
          });
        }
        this.header = { bytes: Buffer.allocUnsafe(headerBytes), filled: 0 };
        this.payload = { bytes: this.takeBuffer(payloadBytes), filled: 0 };
      }
      if (!fill(this.header) || !fill(this.payload)) return;
      const frame: Frame = {
        fields: new URLSearchParams(this.header.bytes.toString('latin1')),
        payload: this.payload.bytes,
      };
      this.header = undefined;
      this.payload = undefined;
      this.lengths.filled = 0;
      yield frame;
    }
  }
}

/**
 * Looks for a line in what a login prints before anything else. Returns what follows the line's mark (`python`), and the
 * bytes after the line; undefined while it is not there.
 */
export function findMark(bytes: Buffer, mark: string): { word: string; rest: Buffer } | undefined {
  const at = bytes.indexOf(`\n${mark} `);
  if (at === -1) return undefined;
  const start = at + mark.length + 2;
  const end = bytes.indexOf('\n', start);
  if (end === -1) return undefined;
  return { word: bytes.subarray(start, end).toString('latin1'), rest: bytes.subarray(end + 1) };
}
