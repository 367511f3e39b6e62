/** Checksums of Linux file systems that Node does not bring. */

function tableOf(polynomial: number): Uint32Array {
  return Uint32Array.from({ length: 256 }, (_, byte) => {
    let value = byte;
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ polynomial : value >>> 1;
    return value >>> 0;
  });
}

const CRC32C = tableOf(0x82f63b78);
const CRC16 = tableOf(0xa001);

/** CRC-32C (Castagnoli) as the Linux kernel counts it: goes on from `seed`, nothing inverted. */
export function crc32c(seed: number, data: Uint8Array): number {
  let crc = seed;
  for (let i = 0; i < data.length; i++) {
    crc = (CRC32C[(crc ^ (data[i] as number)) & 0xff] as number) ^ (crc >>> 8);
  }
  return crc >>> 0;
}

/** CRC-16 (ANSI, reflected) as the Linux kernel counts it. */
export function crc16(seed: number, data: Uint8Array): number {
  let crc = seed;
  for (let i = 0; i < data.length; i++) {
    crc = (CRC16[(crc ^ (data[i] as number)) & 0xff] as number) ^ (crc >>> 8);
  }
  return crc & 0xffff;
}
