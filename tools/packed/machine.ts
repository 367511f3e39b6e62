/** Reading what a package says about the machine it came from. */
export type { Bus, PackedMachine } from '../../core/packed-machine.ts';

/** A hardware address as the facts write it; undefined for what is none. */
export function macOf(text: string | undefined): string | undefined {
  const digits = text?.replace(/[:-]/g, '').toLowerCase() ?? '';
  return /^[0-9a-f]{12}$/.test(digits) ? digits.replace(/(..)(?!$)/g, '$1:') : undefined;
}

/** A positive whole number in decimal digits; undefined for anything else. */
export function wholeNumber(text: string | undefined): number | undefined {
  const value = /^\d{1,16}$/.test(text?.trim() ?? '') ? Number(text) : 0;
  return Number.isSafeInteger(value) && value > 0 ? value : undefined;
}
