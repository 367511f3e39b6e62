/** Quoting for people who copy commands. */

/** A word for a POSIX shell: as it is where that is safe, else in single quotes (POSIX.1-2017, 2.2.2). */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
