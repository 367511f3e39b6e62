/** The configuration file of a VMware machine: `key = "value"` lines. */

/** True for text that is a VMX file: such files begin with their encoding and say their version. */
export function looksLikeVmx(head: string): boolean {
  const text = head.slice(0, 64 * 1024);
  return (
    !text.includes('\0') &&
    /^[ \t]*config\.version[ \t]*=[ \t]*"/im.test(text) &&
    /^(\ufeff|\xef\xbb\xbf)?(\s*#[^\n]*\n)*\s*\.?[\w.:-]{1,100}[ \t]*=[ \t]*"/.test(text)
  );
}
