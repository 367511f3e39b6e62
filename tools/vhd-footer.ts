/** Footer of a VHD we wrote, against Microsoft's "Virtual Hard Disk Image Format Specification" 1.0. Reads the file itself. */
import * as fs from 'node:fs/promises';

const FOOTER_BYTES = 512;
/** Reserved bit that is always set. */
const FEATURES = 2;
const VERSION = 0x0001_0000;
const NO_OFFSET = 0xffff_ffff_ffff_ffffn;
const TYPE = { fixed: 2, dynamic: 3 } as const;

/** What a footer should say. */
export interface ExpectedVhd {
  kind: 'fixed' | 'dynamic';
  virtualBytes: number;
}

/** What is wrong with a footer, as sentences; empty when it is as specified. */
export function footerFaults(footer: Buffer, { kind, virtualBytes }: ExpectedVhd): string[] {
  if (footer.length !== FOOTER_BYTES) return ['the footer is not 512 bytes long'];
  const faults: string[] = [];
  const expect = (what: string, found: bigint | number | string, wanted: bigint | number | string) => {
    if (found !== wanted) faults.push(`${what} is ${found}, not ${wanted}`);
  };
  expect('cookie', footer.toString('latin1', 0, 8), 'conectix');
  expect('features', footer.readUInt32BE(8), FEATURES);
  expect('version', footer.readUInt32BE(12), VERSION);
  expect('data offset', footer.readBigUInt64BE(16), kind === 'fixed' ? NO_OFFSET : 512n);
  expect('original size', footer.readBigUInt64BE(40), BigInt(virtualBytes));
  expect('current size', footer.readBigUInt64BE(48), BigInt(virtualBytes));
  expect('disk type', footer.readUInt32BE(60), TYPE[kind]);
  expect('saved state', footer[84] ?? -1, 0);
  let sum = 0;
  for (const [at, byte] of footer.entries()) if (at < 64 || at >= 68) sum += byte;
  expect('checksum', footer.readUInt32BE(64), ~sum >>> 0);
  return faults;
}

/** What is wrong with a VHD file: its footer, its copy at the start (dynamic), its length (fixed). Throws HOST_IO as Node. */
export async function vhdFaults(file: string, expected: ExpectedVhd): Promise<string[]> {
  const handle = await fs.open(file, 'r');
  try {
    const { size } = await handle.stat();
    const read = async (at: number) => {
      const { buffer, bytesRead } = await handle.read(
        Buffer.alloc(FOOTER_BYTES),
        0,
        FOOTER_BYTES,
        Math.max(0, at),
      );
      return buffer.subarray(0, bytesRead);
    };
    const last = await read(size - FOOTER_BYTES);
    const faults = footerFaults(last, expected);
    if (expected.kind === 'dynamic') {
      if (!(await read(0)).equals(last)) faults.push('the copy of the footer at the start differs');
    } else if (size !== expected.virtualBytes + FOOTER_BYTES) {
      faults.push(`the file has ${size} bytes, not the disk and 512`);
    }
    return faults;
  } finally {
    await handle.close();
  }
}
