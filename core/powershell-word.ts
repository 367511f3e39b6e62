/** Quoting for people who run scripts on Windows. */

/**
 * A word for PowerShell, in single quotes: nothing in it is expanded. Typographic quotes end a string there too, so they are
 * doubled like the plain one (about_Quoting_Rules; `CharTraits.IsSingleQuote` of PowerShell).
 */
export function powershellWord(text: string): string {
  return `'${text.replace(/['\u2018\u2019\u201a\u201b]/g, '$&$&')}'`;
}
