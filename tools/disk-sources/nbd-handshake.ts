/** How a connection to an NBD server begins: fixed newstyle negotiation (proto.md of the NBD project). */
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import type { NbdStream } from './nbd-stream.ts';

const NBD_MAGIC = 0x4e42444d41474943n;
const OPTION_MAGIC = 0x49484156454f5054n;
const REPLY_MAGIC = 0x3e889045565a9n;
const FLAG_FIXED_NEWSTYLE = 1;
const FLAG_NO_ZEROES = 2;
const OPT_GO = 7;
const OPT_STRUCTURED_REPLY = 8;
const OPT_SET_META_CONTEXT = 10;
const REP_ACK = 1;
const REP_INFO = 3;
const REP_META_CONTEXT = 4;
const REP_ERROR = 0x8000_0000;
const INFO_EXPORT = 0;
const INFO_BLOCK_SIZE = 3;
/** What an answer to an option may hold; names and messages have at most 4 KiB. */
const MAX_REPLY_BYTES = 64 * 1024;
const MAX_REPLIES = 64;
/** Largest disk we believe in, as for images. */
const MAX_DISK_BYTES = 64n * 1024n ** 4n;
/** The only metadata we ask for: what is stored. */
const ALLOCATION = 'base:allocation';

/** What servers refuse with (NBD_REP_ERR_*). */
const REFUSALS: Readonly<Record<number, string>> = {
  1: 'it is too old',
  2: 'it does not allow it',
  3: 'it calls the request wrong',
  5: 'it wants TLS, which is not supported',
  6: 'it has no such export',
  7: 'it is shutting down',
  8: 'it wants block sizes that are not supported',
};

/** What the server says of the disk. */
export interface NbdExport {
  sizeBytes: number;
  /** Offsets and lengths of requests are multiples of this. */
  minBlockBytes: number;
  /** Longest request. */
  maxBlockBytes: number;
  /** Number of the metadata that says what is stored; undefined when the server knows nothing of it. */
  allocationId: number | undefined;
}

/** The failure for a server that does not keep to the protocol; trying again does not heal it. */
export function nonsense(name: string, what: string): PortError {
  return new PortError('SOURCE_REMOTE', `${name} is no NBD server we understand: ${what}`, {
    hint: 'check address and port',
  });
}

interface OptionReply {
  type: number;
  data: Buffer;
}

function u32(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32BE(value);
  return buffer;
}

function withLength(data: Buffer): Buffer {
  return Buffer.concat([u32(data.length), data]);
}

/** Sends an option and returns all answers; the last one ends it. */
async function option(stream: NbdStream, name: string, number: number, data: Buffer): Promise<OptionReply[]> {
  const head = Buffer.alloc(16);
  head.writeBigUInt64BE(OPTION_MAGIC, 0);
  head.writeUInt32BE(number, 8);
  head.writeUInt32BE(data.length, 12);
  stream.send(head, data);
  const replies: OptionReply[] = [];
  for (;;) {
    const reply = await stream.take(20);
    const type = reply.readUInt32BE(12);
    const length = reply.readUInt32BE(16);
    if (reply.readBigUInt64BE(0) !== REPLY_MAGIC || reply.readUInt32BE(8) !== number) {
      throw nonsense(name, 'it answers what it was not asked');
    }
    if (length > MAX_REPLY_BYTES || replies.length > MAX_REPLIES)
      throw nonsense(name, 'its answer has no end');
    replies.push({ type, data: await stream.take(length) });
    if (type === REP_ACK || type >= REP_ERROR) return replies;
  }
}

function accepted(replies: readonly OptionReply[]): boolean {
  return replies.at(-1)?.type === REP_ACK;
}

async function greet(stream: NbdStream, name: string): Promise<void> {
  const hello = await stream.take(18);
  const newstyle = hello.readBigUInt64BE(0) === NBD_MAGIC && hello.readBigUInt64BE(8) === OPTION_MAGIC;
  if (!newstyle) throw nonsense(name, 'its greeting is another one');
  const flags = hello.readUInt16BE(16);
  if ((flags & FLAG_FIXED_NEWSTYLE) === 0) throw nonsense(name, 'it is too old');
  stream.send(u32(FLAG_FIXED_NEWSTYLE | (flags & FLAG_NO_ZEROES)));
}

async function allocationId(
  stream: NbdStream,
  name: string,
  exportName: Buffer,
): Promise<number | undefined> {
  if (!accepted(await option(stream, name, OPT_STRUCTURED_REPLY, Buffer.alloc(0)))) return undefined;
  const query = Buffer.concat([withLength(exportName), u32(1), withLength(Buffer.from(ALLOCATION))]);
  const replies = await option(stream, name, OPT_SET_META_CONTEXT, query);
  const context = replies.find(
    (r) => r.type === REP_META_CONTEXT && r.data.toString('latin1', 4) === ALLOCATION,
  );
  return accepted(replies) && context !== undefined ? context.data.readUInt32BE(0) : undefined;
}

function exportOf(name: string, replies: readonly OptionReply[]): Omit<NbdExport, 'allocationId'> {
  const infos = replies.filter((r) => r.type === REP_INFO && r.data.length >= 2).map((r) => r.data);
  const size = infos.find((d) => d.readUInt16BE(0) === INFO_EXPORT && d.length >= 12)?.readBigUInt64BE(2);
  if (size === undefined) throw nonsense(name, 'it does not say how large the disk is');
  if (size > MAX_DISK_BYTES) throw nonsense(name, 'its disk is larger than 64 TiB');
  const blocks = infos.find((d) => d.readUInt16BE(0) === INFO_BLOCK_SIZE && d.length >= 14);
  const minBlockBytes = blocks?.readUInt32BE(2) ?? 1;
  const maxBlockBytes = blocks?.readUInt32BE(10) ?? 32 * 1024 * 1024;
  const powerOfTwo = minBlockBytes > 0 && (minBlockBytes & (minBlockBytes - 1)) === 0;
  if (!powerOfTwo || minBlockBytes > 64 * 1024 || maxBlockBytes < minBlockBytes) {
    throw nonsense(name, 'it wants impossible block sizes');
  }
  return { sizeBytes: Number(size), minBlockBytes, maxBlockBytes };
}

/** Negotiates until reads can be sent. Throws SOURCE_REMOTE. */
export async function negotiate(stream: NbdStream, name: string, exportName: string): Promise<NbdExport> {
  const wanted = Buffer.from(exportName);
  await greet(stream, name);
  const allocation = await allocationId(stream, name, wanted);
  // one piece of information is asked for: the sizes of blocks
  const replies = await option(
    stream,
    name,
    OPT_GO,
    Buffer.concat([withLength(wanted), Buffer.from([0, 1, 0, INFO_BLOCK_SIZE])]),
  );
  if (!accepted(replies)) throw refusal(name, exportName, replies.at(-1));
  return { ...exportOf(name, replies), allocationId: allocation };
}

function refusal(name: string, exportName: string, last: OptionReply | undefined): PortError {
  const number = (last?.type ?? REP_ERROR) - REP_ERROR;
  const words = printable(last?.data.toString('utf8') ?? '').slice(0, 300);
  const why = `${REFUSALS[number] ?? `error ${number}`}${words === '' ? '' : ` (${words})`}`;
  return new PortError(
    'SOURCE_REMOTE',
    `${name}: the server refuses the export "${printable(exportName)}": ${why}`,
    {
      // shutting down: another one may come
      temporary: number === 7,
      hint: number === 5 ? 'reach it through ssh -L instead' : 'check the name of the export',
    },
  );
}
