/** modules.dep(5): which modules a kernel module needs. */
import { moduleName } from './initramfs.ts';

/** Modules each one needs, all of them and not only the next, names with `_`. Lines of another form are left out. */
export function readModulesDep(text: string): Map<string, string[]> {
  const dependencies = new Map<string, string[]>();
  for (const line of text.split('\n')) {
    const colon = line.indexOf(':');
    const name = colon === -1 ? undefined : moduleName(line.slice(0, colon));
    if (name === undefined) continue;
    const needed = line
      .slice(colon + 1)
      .split(' ')
      .flatMap((word) => moduleName(word) ?? []);
    dependencies.set(name, needed);
  }
  return dependencies;
}
