/** grubenv: GRUB's own store of variables, always 1024 bytes (GRUB manual, "Environment block"; grub-core/lib/envblk.c). */

/** Size of the block in bytes. GRUB writes into it in place, so it must never change. */
const BLOCK_BYTES = 1024;
const SIGNATURE = '# GRUB Environment Block\n';

interface Line {
  name: string | undefined;
  raw: string;
}

/** Lines without the filling of `#` at the end; a backslash joins a line with the next one. */
function linesOf(text: string): Line[] | undefined {
  if (!text.startsWith(SIGNATURE)) return undefined;
  const body = text.slice(SIGNATURE.length).replace(/#*$/, '');
  const raws = body.match(/(?:\\[\s\S]|[^\\\n])*\n/g) ?? [];
  if (raws.join('') !== body) return undefined;
  return raws.map((raw) => ({ name: /^([A-Za-z_]\w*)=/.exec(raw)?.[1], raw }));
}

/** Value of a variable; undefined when it is not set or the block is none. */
export function grubEnvValue(text: string, name: string): string | undefined {
  const line = linesOf(text)?.find((l) => l.name === name);
  if (line === undefined) return undefined;
  return line.raw.slice(name.length + 1, -1).replace(/\\([\s\S])/g, '$1');
}

/** Sets a variable. Returns undefined when the text is no environment block or has no room for it. */
export function setGrubEnv(text: string, name: string, value: string): string | undefined {
  const lines = linesOf(text);
  if (lines === undefined || /\n/.test(value)) return undefined;
  const raw = `${name}=${value.replace(/\\/g, '\\\\')}\n`;
  const at = lines.findIndex((l) => l.name === name);
  const raws = lines.map((l, i) => (i === at ? raw : l.raw));
  if (at === -1) raws.push(raw);
  const content = SIGNATURE + raws.join('');
  const filling = BLOCK_BYTES - Buffer.byteLength(content);
  return filling < 0 ? undefined : content + '#'.repeat(filling);
}
