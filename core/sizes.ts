/** Sizes and durations: parsing what people write, printing what people read. */
import { PortError } from './errors.ts';

/** 1 KiB in bytes. */
export const KIB = 1024;
/** 1 MiB in bytes. */
export const MIB = 1024 * KIB;
/** 1 GiB in bytes. */
export const GIB = 1024 * MIB;

const UNITS: Readonly<Record<string, number>> = { '': 1, K: KIB, M: MIB, G: GIB, T: 1024 * GIB };

/** Parses `512`, `64K`, `300M`, `1.5G`, `2T` (also `KiB`, `MB`; always powers of 1024). Throws USAGE. */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?$/i.exec(text.trim());
  const unit = UNITS[(match?.[2] ?? '').toUpperCase()];
  const size = Math.round(Number(match?.[1]) * (unit ?? Number.NaN));
  if (!Number.isSafeInteger(size)) {
    throw new PortError('USAGE', `not a size: ${text}`, { hint: 'write for example 64K, 300M or 1.5G' });
  }
  return size;
}

/** Bytes for people: `0 B`, `13 KiB`, `1.4 GiB`. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  for (const unit of ['B', 'KiB', 'MiB', 'GiB']) {
    if (value < 1024) return `${value < 10 && unit !== 'B' ? value.toFixed(1) : Math.round(value)} ${unit}`;
    value /= 1024;
  }
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} TiB`;
}

/** Seconds for people: `4.2 s`, `3 min 05 s`. */
export function formatSeconds(seconds: number): string {
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, '0')} s`;
}

/** Rounds up to a multiple of `step`. */
export function roundUp(value: number, step: number): number {
  return Math.ceil(value / step) * step;
}
