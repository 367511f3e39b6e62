/** dracut.conf drop-ins: the one this program writes, and lines of others that would undo it. Format: dracut.conf(5). */

/** Name of our drop-in. dracut reads all drop-in folders as one list sorted by name, and the last value wins. */
export const DRACUT_CONF = '/etc/dracut.conf.d/zz-port-image.conf';

/** Kernel module and device words that need no quoting in a file bash reads. */
const SAFE = /^[\w.+:/=-]+$/;

/**
 * Text of the drop-in. `arguments` are kernel arguments for the initramfs alone; what a host-only image had learned
 * from the old machine. Words with other characters than a module or volume group has are left out.
 */
export function dracutConf(modules: readonly string[], kernelArguments: readonly string[]): string {
  const words = (list: readonly string[]) => list.filter((word) => SAFE.test(word)).join(' ');
  const lines = [
    '# Written by port-image: this and every later initramfs fits any machine of the target platforms.',
    'hostonly="no"',
    'hostonly_cmdline="no"',
  ];
  // The spaces inside the quotes are needed: dracut joins the values of all files.
  if (modules.length > 0) lines.push(`add_drivers+=" ${words(modules)} "`);
  if (kernelArguments.length > 0) lines.push(`kernel_cmdline+=" ${words(kernelArguments)} "`);
  return `${lines.join('\n')}\n`;
}

/**
 * Takes `modules` out of `omit_drivers` lines, which are stronger than `add_drivers` whatever the order. All else stays.
 * Words of omit_drivers may be patterns; those are not understood and stay.
 */
export function withoutOmitted(text: string, modules: readonly string[]): string {
  const wanted = new Set(modules.map((m) => m.replaceAll('-', '_')));
  return text.replace(
    /^([ \t]*omit_drivers\+?=)(["'])([^"'\n]*)\2/gm,
    (all, head: string, quote: string, list: string) => {
      const words = list.split(/\s+/).filter((word) => word !== '');
      const kept = words.filter((word) => !wanted.has(word.replaceAll('-', '_')));
      if (kept.length === words.length) return all;
      return `${head}${quote}${kept.length === 0 ? '' : ` ${kept.join(' ')} `}${quote}`;
    },
  );
}
