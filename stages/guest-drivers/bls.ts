/** What grubby would do to every entry of a RHEL boot menu, as file edits: no program of the guest looks at the appliance. */
import { PortError } from '../../core/errors.ts';
import type { GuestFiles } from '../../core/guest.ts';
import { textEdit } from '../../families/edits.ts';
import type { FileEdit } from '../../families/family.ts';
import { editBlsEntry, isKernelopts, parseBlsEntry } from '../../tools/grub-bls.ts';
import { type ArgumentChange, changeWords } from '../../tools/grub-edit.ts';
import { grubEnvValue, setGrubEnv } from '../../tools/grub-env.ts';
import { splitArguments } from '../../tools/kernel-arguments.ts';

const ENTRIES = '/boot/loader/entries';
/** `kernel-install` takes the arguments of the next kernel's entry from here (man kernel-install). */
const CMDLINE = '/etc/kernel/cmdline';
const WHY = 'kernel arguments of the platforms, device names as UUIDs; what grubby would write';

interface Entry {
  path: string;
  text: string;
}

async function readEntries(guest: GuestFiles): Promise<Entry[]> {
  const entries: Entry[] = [];
  for (const name of await guest.list(ENTRIES)) {
    if (!name.endsWith('.conf')) continue;
    const path = `${ENTRIES}/${name}`;
    const text = await guest.readText(path);
    if (text !== undefined && parseBlsEntry(name, text) !== undefined) entries.push({ path, text });
  }
  return entries;
}

/** The environment block that is in use; on UEFI `/boot/grub2/grubenv` is a link to the one beside the loader. */
async function findGrubEnv(guest: GuestFiles): Promise<Entry | undefined> {
  for (const path of ['/boot/grub2/grubenv', '/boot/grub/grubenv']) {
    const text = await guest.readText(path);
    if (text !== undefined) return { path, text };
  }
  return undefined;
}

/**
 * Plans the edits of boot entries, `kernelopts` in grubenv, and the arguments of later kernels; `config` is grub.cfg, whose
 * own fallback for `kernelopts` is edited with the rest of it. Nothing when the guest has no such entries. Throws GUEST_BROKEN when entries name `$kernelopts` and there is no
 * value anywhere.
 */
export async function blsEdits(
  guest: GuestFiles,
  config: string,
  change: ArgumentChange,
): Promise<FileEdit[]> {
  const entries = await readEntries(guest);
  if (entries.length === 0) return [];
  const edits: FileEdit[] = [];
  const shared = entries.some((e) => parseBlsEntry('', e.text)?.options.some(isKernelopts));
  let inlined: string[] | undefined;
  if (shared) {
    const env = await findGrubEnv(guest);
    const value = env === undefined ? undefined : grubEnvValue(env.text, 'kernelopts');
    if (env !== undefined && value !== undefined) {
      const words = changeWords(splitArguments(value), change, true);
      const after = setGrubEnv(env.text, 'kernelopts', words.join(' '));
      if (after === undefined) inlined = splitArguments(value);
      else edits.push(...textEdit(env.path, env.text, after, WHY));
    } else if (!/^[ \t]*set (?:default_)?kernelopts="/m.test((await guest.readText(config)) ?? '')) {
      throw new PortError('GUEST_BROKEN', 'the boot entries name $kernelopts, which nothing sets', {
        hint: 'run on the server: grub2-mkconfig -o /boot/grub2/grub.cfg',
      });
    }
  }
  for (const { path, text } of entries)
    edits.push(...textEdit(path, text, editBlsEntry(text, change, inlined), WHY));
  const cmdline = await guest.readText(CMDLINE);
  if (cmdline !== undefined && cmdline.trim() !== '') {
    const words = changeWords(splitArguments(cmdline.trim()), change, true);
    const after = `${words.join(' ')}\n`;
    if (words.join(' ') !== splitArguments(cmdline.trim()).join(' ')) {
      edits.push(...textEdit(CMDLINE, cmdline, after, 'entries of later kernels get our arguments'));
    }
  }
  return edits;
}
