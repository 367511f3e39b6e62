/**
 * The index of a disk copy, little-endian: a header of 4 KiB (JSON, padded), the id of the boot that wrote last (one
 * sector, so it is never half old and half new), and from 8 KiB on a record of 40 bytes for each block. A record that
 * was never written is all zeros, so an index of a sparse disk is sparse too.
 */
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import { FILE_MODE, renameDurable, temporaryName, writeFull } from '../../core/files.ts';
import { printable } from '../../core/text.ts';

/** Bytes of the header. */
const HEADER_BYTES = 4096;
/** Where the boot id stands, and how long its sector is. */
const BOOT_AT = 4096;
const BOOT_BYTES = 512;
/** Where the records start. */
const RECORDS_AT = 8192;
/** State (1), pass (3), crc32 (4), sha256 (32). */
const RECORD_BYTES = 40;
/** Records held and read together. */
const PAGE_RECORDS = 4096;
/** Number of a pass: 3 bytes. */
const MAX_PASS = 0xff_ff_ff;

/**
 * What the index knows of a block: `hole`: never written here, so it reads as zeros; `zero`: zeros on the source;
 * `data`; `bad`: as `data`, but parts could not be read; `unknown`: what is here may be anything.
 */
const STATES = ['hole', 'zero', 'data', 'bad', 'unknown'] as const;
/** State of a block's record. */
export type RecordState = (typeof STATES)[number];

const Header = z.object({
  magic: z.literal('port-image disk copy'),
  version: z.literal(1),
  sizeBytes: z.number().int().positive().describe('of the disk'),
  blockBytes: z.number().int().positive(),
  sourceSha256: z.string().describe('of the id of the source'),
  source: z.string().describe('start of the id of the source, for messages'),
  salt: z
    .string()
    .regex(/^[0-9a-f]{32}$/)
    .describe('goes into the checksum of each record'),
});
/** What stands at the start of an index. */
export type Header = z.infer<typeof Header>;

/** One record. */
export interface IndexRecord {
  state: RecordState;
  /** Pass that read it last; 0 for holes. */
  pass: number;
  /** Of the whole block; meaningless for holes and unknown ones. */
  sha256: Buffer;
}

const NO_SUM = Buffer.alloc(32);
const EMPTY_RECORD = Buffer.alloc(RECORD_BYTES);

/** An open index. Changes are made in memory and written by `put`. */
export class IndexFile {
  readonly header: Header;
  readonly #handle: fs.FileHandle;
  readonly #pages: (Buffer | undefined)[] = [];
  readonly #seed: number;
  readonly #label = Buffer.alloc(8);

  private constructor(handle: fs.FileHandle, header: Header) {
    this.#handle = handle;
    this.header = header;
    this.#seed = crc32(Buffer.from(header.salt, 'hex'));
  }

  /** Makes an empty index, whole or not at all. */
  static async create(file: string, about: Omit<Header, 'magic' | 'version' | 'salt'>): Promise<void> {
    const header: Header = {
      magic: 'port-image disk copy',
      version: 1,
      ...about,
      salt: randomBytes(16).toString('hex'),
    };
    const temporary = temporaryName(file);
    const handle = await fs.open(temporary, 'wx', FILE_MODE);
    try {
      await handle.write(
        Buffer.from(
          JSON.stringify(header)
            .padEnd(HEADER_BYTES - 1)
            .concat('\n'),
        ),
        0,
        HEADER_BYTES,
        0,
      );
      await handle.truncate(RECORDS_AT);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await renameDurable(temporary, file);
  }

  /** Opens and reads an index. Records whose checksum is wrong are unknown. Throws JOB_TAMPERED, ENOENT as it is. */
  static async open(file: string): Promise<IndexFile> {
    const handle = await fs.open(file, 'r+');
    try {
      const index = new IndexFile(handle, await readHeader(handle, file));
      await index.#load();
      return index;
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /** Blocks of the disk. */
  get blockCount(): number {
    return Math.ceil(this.header.sizeBytes / this.header.blockBytes);
  }

  async #load(): Promise<void> {
    const pageBytes = PAGE_RECORDS * RECORD_BYTES;
    const empty = Buffer.alloc(pageBytes);
    const count = Math.ceil(this.blockCount / PAGE_RECORDS);
    let buffer = Buffer.alloc(pageBytes);
    for (let page = 0; page < count; page++) {
      const { bytesRead } = await this.#handle.read(buffer, 0, pageBytes, RECORDS_AT + page * pageBytes);
      if (bytesRead === 0) break;
      buffer.fill(0, bytesRead);
      if (buffer.equals(empty)) continue;
      this.#pages[page] = buffer;
      buffer = Buffer.alloc(pageBytes);
      for (let i = page * PAGE_RECORDS; i < (page + 1) * PAGE_RECORDS; i++) this.#distrust(i);
    }
  }

  /** A record that was cut, moved or changed says nothing. */
  #distrust(block: number): void {
    const record = this.#record(block);
    if (record === undefined || record.equals(EMPTY_RECORD)) return;
    const known = (record[0] ?? 0) > 0 && (record[0] ?? 0) < STATES.length;
    if (block >= this.blockCount || !known || record.readUInt32LE(4) !== this.#sum(block, record)) {
      this.set(block, 'unknown', 0, NO_SUM);
    }
  }

  #sum(block: number, record: Buffer): number {
    this.#label.writeUIntLE(block, 0, 6);
    const seeded = crc32(this.#label, this.#seed);
    return crc32(record.subarray(8), crc32(record.subarray(0, 4), seeded));
  }

  #record(block: number): Buffer | undefined {
    const at = (block % PAGE_RECORDS) * RECORD_BYTES;
    return this.#pages[Math.floor(block / PAGE_RECORDS)]?.subarray(at, at + RECORD_BYTES);
  }

  /** State of a block. */
  state(block: number): RecordState {
    return STATES[this.#record(block)?.[0] ?? 0] ?? 'unknown';
  }

  /** What is known of a block; the sum is a view, valid until the block is set again. */
  get(block: number): IndexRecord {
    const record = this.#record(block);
    if (record === undefined) return { state: 'hole', pass: 0, sha256: NO_SUM };
    return { state: this.state(block), pass: record.readUIntLE(1, 3), sha256: record.subarray(8) };
  }

  /** Changes a record in memory. */
  set(block: number, state: RecordState, pass: number, sha256: Uint8Array): void {
    if (pass > MAX_PASS || sha256.length !== 32)
      throw new PortError('BUG', `no record of a block: pass ${pass}`);
    const page = Math.floor(block / PAGE_RECORDS);
    this.#pages[page] ??= Buffer.alloc(PAGE_RECORDS * RECORD_BYTES);
    const record = this.#record(block) ?? EMPTY_RECORD;
    record[0] = STATES.indexOf(state);
    record.writeUIntLE(pass, 1, 3);
    record.set(sha256, 8);
    record.writeUInt32LE(this.#sum(block, record), 4);
  }

  /** Writes records as they are in memory now; ascending numbers make few writes. */
  async put(blocks: readonly number[]): Promise<void> {
    for (let i = 0; i < blocks.length; ) {
      const first = blocks[i] ?? 0;
      const records: Buffer[] = [];
      for (; blocks[i] === first + records.length; i++)
        records.push(this.#record(blocks[i] ?? 0) ?? EMPTY_RECORD);
      const bytes = Buffer.concat(records);
      await writeFull(this.#handle, bytes, RECORDS_AT + first * RECORD_BYTES);
    }
  }

  /** Waits until what was put is on the disk. */
  async sync(): Promise<void> {
    await this.#handle.datasync();
  }

  /** Id of the boot during which this index was written last; anything when it was cut. */
  async bootId(): Promise<string> {
    const buffer = Buffer.alloc(BOOT_BYTES);
    await this.#handle.read(buffer, 0, BOOT_BYTES, BOOT_AT);
    return buffer.toString('latin1').trim();
  }

  /** Says that what the index holds was written, or found to be right, during this boot. */
  async setBootId(id: string): Promise<void> {
    await this.#handle.write(Buffer.from(id.padEnd(BOOT_BYTES), 'latin1'), 0, BOOT_BYTES, BOOT_AT);
    await this.#handle.datasync();
  }

  /** Closes the file; what was not put is lost. */
  async close(): Promise<void> {
    await this.#handle.close();
  }
}

async function readHeader(handle: fs.FileHandle, file: string): Promise<Header> {
  const buffer = Buffer.alloc(HEADER_BYTES);
  await handle.read(buffer, 0, HEADER_BYTES, 0);
  try {
    return Header.parse(JSON.parse(buffer.toString('utf8')));
  } catch (cause) {
    throw new PortError('JOB_TAMPERED', `${printable(file)} is not an index this program wrote`, {
      cause,
      hint: 'remove it and the .raw file beside it; the disk is then copied again',
    });
  }
}
