/**
 * Reads what an .rpm file says about itself, without rpm: lead, signature header, header (rpm.org, "RPM V4 package
 * format"). Signatures are not checked here; the guest's rpm does that with the guest's keys.
 */
import * as fs from 'node:fs/promises';
import { PortError } from '../core/errors.ts';

/** A package as its header describes it. */
export interface RpmFile {
  name: string;
  /** `epoch:version-release`, without the epoch when it has none. */
  version: string;
  architecture: string;
  requires: string[];
  provides: string[];
}

const LEAD_BYTES = 96;
const LEAD_MAGIC = 0xedabeedb;
/** Three bytes of magic and the version 1. */
const HEADER_MAGIC = 0x8eade801;
const MAX_ENTRIES = 65_536;
/** Headers of the largest packages (kernels, TeX) have some ten megabytes. */
const MAX_STORE_BYTES = 64 * 1024 * 1024;

const TAG = {
  name: 1000,
  version: 1001,
  release: 1002,
  epoch: 1003,
  arch: 1022,
  provides: 1047,
  requires: 1049,
};
const TYPE = { int32: 4, string: 6, stringArray: 8, i18n: 9 };

interface Header {
  strings(tag: number): string[];
  int32(tag: number): number | undefined;
}

function broken(file: string, how: string): PortError {
  return new PortError('PACKAGES', `${file} is no usable RPM package: ${how}`);
}

/** Size of a header's index and store, from its first 16 bytes. */
function headerSizes(file: string, intro: Buffer): { entries: number; storeBytes: number } {
  if (intro.length < 16 || intro.readUInt32BE(0) !== HEADER_MAGIC)
    throw broken(file, 'a header has no magic');
  const entries = intro.readUInt32BE(8);
  const storeBytes = intro.readUInt32BE(12);
  if (entries > MAX_ENTRIES || storeBytes > MAX_STORE_BYTES) throw broken(file, 'a header is absurdly large');
  return { entries, storeBytes };
}

function parseHeader(file: string, index: Buffer, store: Buffer): Header {
  const found = new Map<number, { type: number; offset: number; count: number }>();
  for (let at = 0; at + 16 <= index.length; at += 16) {
    found.set(index.readUInt32BE(at), {
      type: index.readUInt32BE(at + 4),
      offset: index.readUInt32BE(at + 8),
      count: index.readUInt32BE(at + 12),
    });
  }
  return {
    strings(tag) {
      const entry = found.get(tag);
      if (entry === undefined) return [];
      const { type, offset } = entry;
      if (type !== TYPE.string && type !== TYPE.stringArray && type !== TYPE.i18n)
        throw broken(file, `tag ${tag} is no text`);
      const count = type === TYPE.string ? 1 : entry.count;
      const out: string[] = [];
      let at = offset;
      for (let i = 0; i < count; i++) {
        const end = at < store.length ? store.indexOf(0, at) : -1;
        if (end === -1) throw broken(file, `tag ${tag} reaches out of the header`);
        out.push(store.subarray(at, end).toString('utf8'));
        at = end + 1;
      }
      return out;
    },
    int32(tag) {
      const entry = found.get(tag);
      if (entry === undefined || entry.type !== TYPE.int32 || entry.count < 1) return undefined;
      if (entry.offset + 4 > store.length) throw broken(file, `tag ${tag} reaches out of the header`);
      return store.readUInt32BE(entry.offset);
    },
  };
}

/** Reads one package. Throws PACKAGES when it is none. */
export async function readRpmFile(file: string): Promise<RpmFile> {
  const handle = await fs.open(file, 'r');
  try {
    const take = async (position: number, bytes: number) => {
      const buffer = Buffer.alloc(bytes);
      const { bytesRead } = await handle.read(buffer, 0, bytes, position);
      if (bytesRead < bytes) throw broken(file, 'it is cut');
      return buffer;
    };
    const lead = await take(0, LEAD_BYTES);
    if (lead.readUInt32BE(0) !== LEAD_MAGIC) throw broken(file, 'it does not start like one');
    if (lead.readUInt16BE(6) !== 0) throw broken(file, 'it is a source package');
    const signature = headerSizes(file, await take(LEAD_BYTES, 16));
    const signatureBytes = 16 + signature.entries * 16 + signature.storeBytes;
    // Only the signature is padded, to 8 bytes.
    const start = LEAD_BYTES + Math.ceil(signatureBytes / 8) * 8;
    const { entries, storeBytes } = headerSizes(file, await take(start, 16));
    const { size } = await handle.stat();
    if (start + 16 + entries * 16 + storeBytes > size) throw broken(file, 'it is cut');
    const index = await take(start + 16, entries * 16);
    const header = parseHeader(file, index, await take(start + 16 + index.length, storeBytes));
    const one = (tag: number) => header.strings(tag)[0] ?? '';
    const epoch = header.int32(TAG.epoch);
    const name = one(TAG.name);
    if (!/^[A-Za-z0-9_][\w.+-]*$/.test(name)) throw broken(file, 'it has no name');
    return {
      name,
      version: `${epoch === undefined ? '' : `${epoch}:`}${one(TAG.version)}-${one(TAG.release)}`,
      architecture: one(TAG.arch),
      requires: header.strings(TAG.requires),
      provides: header.strings(TAG.provides),
    };
  } finally {
    await handle.close();
  }
}
