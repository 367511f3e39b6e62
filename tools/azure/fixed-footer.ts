/** Footer of a fixed VHD, by Microsoft's "Virtual Hard Disk Image Format Specification" 1.0. The same disk has the same footer. */

/** It is one page. */
export const FOOTER_BYTES = 512;
const SECTOR_BYTES = 512;
/** Largest geometry of the format; larger disks have it too, and their size alone counts. */
const MOST_SECTORS = 65_535 * 16 * 255;

/** Cylinders, heads and sectors: the appendix "CHS Calculation" of the specification. */
function geometry(bytes: number): { cylinders: number; heads: number; sectors: number } {
  const total = Math.min(Math.floor(bytes / SECTOR_BYTES), MOST_SECTORS);
  if (total >= 65_535 * 16 * 63) return { cylinders: Math.floor(total / 255 / 16), heads: 16, sectors: 255 };
  let sectors = 17;
  let tracks = Math.floor(total / sectors);
  let heads = Math.max(4, Math.floor((tracks + 1023) / 1024));
  if (tracks >= heads * 1024 || heads > 16) {
    [sectors, heads] = [31, 16];
    tracks = Math.floor(total / sectors);
  }
  if (tracks >= heads * 1024) {
    [sectors, heads] = [63, 16];
    tracks = Math.floor(total / sectors);
  }
  return { cylinders: Math.floor(tracks / heads), heads, sectors };
}

/** The footer of a disk of so many bytes. `id` are 16 bytes that tell it from others. */
export function fixedFooter(bytes: number, id: Buffer): Buffer {
  const footer = Buffer.alloc(FOOTER_BYTES);
  footer.write('conectix', 0, 'latin1');
  footer.writeUInt32BE(2, 8);
  footer.writeUInt32BE(0x0001_0000, 12);
  // a fixed disk has no header to point to
  footer.fill(0xff, 16, 24);
  // programs that do not know the creator believe the geometry, not the size
  footer.write('qem2', 28, 'latin1');
  footer.writeUInt32BE(0x0005_0003, 32);
  footer.write('Wi2k', 36, 'latin1');
  footer.writeBigUInt64BE(BigInt(bytes), 40);
  footer.writeBigUInt64BE(BigInt(bytes), 48);
  const { cylinders, heads, sectors } = geometry(bytes);
  footer.writeUInt16BE(cylinders, 56);
  footer[58] = heads;
  footer[59] = sectors;
  footer.writeUInt32BE(2, 60);
  id.copy(footer, 68, 0, 16);
  let sum = 0;
  for (const byte of footer) sum += byte;
  footer.writeUInt32BE(~sum >>> 0, 64);
  return footer;
}
