/** The names in cpio archives of the `newc` kind, as the kernel reads them. */
import { PortError } from '../core/errors.ts';
import type { ByteCursor } from './byte-cursor.ts';

const HEADER_BYTES = 110;
const MAX_NAME_BYTES = 4096;
const MAX_MEMBERS = 500_000;
const TRAILER = 'TRAILER!!!';

/**
 * Adds the names of all archives that follow each other at the cursor, and stops at the first byte that is neither
 * an archive nor zero padding. Throws GUEST_BROKEN for a header that makes no sense or an archive that is cut.
 */
export async function readCpioNames(cursor: ByteCursor, names: Set<string>): Promise<void> {
  for (let members = 0; ; members++) {
    if (members > MAX_MEMBERS) throw broken('has too many members');
    await cursor.skipZeros();
    const header = await cursor.peek(HEADER_BYTES);
    const magic = header.subarray(0, 6).toString('latin1');
    if (magic !== '070701' && magic !== '070702') return;
    if (header.length < HEADER_BYTES) throw broken('is cut in a header');
    const dataBytes = hexField(header, 54);
    const nameBytes = hexField(header, 94);
    if (nameBytes < 1 || nameBytes > MAX_NAME_BYTES) throw broken(`has a name of ${nameBytes} bytes`);
    await cursor.skip(HEADER_BYTES);
    const raw = await cursor.peek(nameBytes);
    if (raw.length < nameBytes || raw[nameBytes - 1] !== 0) throw broken('is cut in a name');
    const name = raw.subarray(0, raw.indexOf(0)).toString('utf8');
    await cursor.skip(nameBytes);
    const padding = (4 - ((HEADER_BYTES + nameBytes) % 4)) % 4;
    const dataPadding = (4 - (dataBytes % 4)) % 4;
    if (dataBytes > 0 && !(await cursor.skip(padding + dataBytes))) throw broken(`is cut in ${name}`);
    // Padding at the very end may be missing; a member without data is followed by its name's padding only.
    await cursor.skip(dataBytes > 0 ? dataPadding : padding);
    if (name !== TRAILER) {
      const clean = name.replace(/^(?:\.?\/)+/, '');
      if (clean !== '' && clean !== '.') names.add(clean);
    }
  }
}

function hexField(header: Buffer, offset: number): number {
  const text = header.subarray(offset, offset + 8).toString('latin1');
  if (!/^[0-9a-fA-F]{8}$/.test(text)) throw broken('has a header that is no number');
  return Number.parseInt(text, 16);
}

function broken(how: string): PortError {
  return new PortError('GUEST_BROKEN', `the initramfs ${how}`);
}
