/** Physical volumes as LVM2 writes them, made from text; the sample servers have real ones. */
import { crc32 } from 'node:zlib';

/** Checksum of LVM2: another start value, no inversion. */
function lvmCrc(data: Buffer): number {
  return ~crc32(data, ~0xf597a6cf >>> 0) >>> 0;
}

/** Puts right the checksums of a physical volume made by `lvmImage`. */
export function sealLvm(image: Buffer): void {
  image.writeUInt32LE(lvmCrc(image.subarray(512 + 20, 1024)), 512 + 16);
  const [offset, length] = [image.readUInt32LE(4096 + 40), image.readUInt32LE(4096 + 48)];
  if (offset >= 512 && offset < 65536 && length < 65536) {
    const first = Math.min(length, 65536 - offset);
    const text = Buffer.concat([
      image.subarray(4096 + offset, 4096 + offset + first),
      image.subarray(4096 + 512, 4096 + 512 + length - first),
    ]);
    image.writeUInt32LE(lvmCrc(text), 4096 + 56);
  }
  image.writeUInt32LE(lvmCrc(image.subarray(4096 + 4, 4096 + 512)), 4096);
}

/** A physical volume: label in sector 1, a metadata area of 64 KiB at 4 KiB whose text begins at `textAt`, extents from 1 MiB on. */
export function lvmImage(sizeBytes: number, text: string, textAt = 512): Buffer {
  const image = Buffer.alloc(sizeBytes);
  image.write('LABELONE', 512);
  image.writeUInt32LE(1, 512 + 8);
  image.writeUInt32LE(32, 512 + 20);
  image.write('LVM2 001', 512 + 24);
  image.write('pv0pv0pv0pv0pv0pv0pv0pv0pv0pv0pv', 512 + 32);
  image.writeUInt32LE(sizeBytes, 512 + 64);
  image.writeUInt32LE(1048576, 512 + 72);
  image.writeUInt32LE(4096, 512 + 104);
  image.writeUInt32LE(65536, 512 + 112);
  image.write(' LVM2 x[5A%r0N*>', 4096 + 4);
  image.writeUInt32LE(1, 4096 + 20);
  image.writeUInt32LE(4096, 4096 + 24);
  image.writeUInt32LE(65536, 4096 + 32);
  const bytes = Buffer.from(`${text}\0`);
  image.writeUInt32LE(textAt, 4096 + 40);
  image.writeUInt32LE(bytes.length, 4096 + 48);
  const first = Math.min(bytes.length, 65536 - textAt);
  bytes.copy(image, 4096 + textAt, 0, first);
  bytes.copy(image, 4096 + 512, first);
  sealLvm(image);
  return image;
}

/** Metadata of a group with extents of 1 MiB on this physical volume and `pv1` elsewhere. */
export function groupText(extents: number, volumes: string): string {
  return `# generated
contents = "Text Format Volume Group"
version = 1
data {
  id = "a-b"
  seqno = 7
  status = ["RESIZEABLE", "READ", "WRITE"]	# of the group
  extent_size = 2048
  physical_volumes {
    pv0 { id = "pv0pv0-pv0p-v0pv-0pv0-pv0p-v0pv-0pv0pv" device = "/dev/\\"odd\\"" pe_start = 2048 pe_count = ${extents} }
    pv1 { id = "other" pe_start = 2048 pe_count = 100 }
  }
  logical_volumes { ${volumes} }
}
`;
}

/** One volume of metadata. */
export function volumeText(
  name: string,
  segments: readonly string[],
  status = '["READ", "WRITE", "VISIBLE"]',
): string {
  return `${name} { id = "lv" status = ${status} flags = [] segment_count = ${segments.length}
    ${segments.map((segment, i) => `segment${i + 1} { ${segment} }`).join('\n')} }`;
}

/** A linear segment. */
export function linear(start: number, count: number, at: number, pv = 'pv0'): string {
  return `start_extent = ${start} extent_count = ${count} type = "striped" stripe_count = 1 stripes = ["${pv}", ${at}]`;
}
