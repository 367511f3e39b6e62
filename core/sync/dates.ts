/** Dates as this program writes them. */

/** ISO 8601 in UTC, whole seconds. */
export function isoDate(date: Date): string {
  return `${date.toISOString().slice(0, 19)}Z`;
}

/** The same as a word that fits names: `20260821T010203Z`. */
export function dateWord(date: Date): string {
  return isoDate(date).replace(/[-:]/g, '');
}
