/** GRUB: kernel arguments, serial console and device names, in its defaults and in the generated menu. */
import type { Facts } from '../../core/facts.ts';
import type { GuestFiles } from '../../core/guest.ts';
import { textEdit } from '../../families/edits.ts';
import type { FileEdit } from '../../families/family.ts';
import type { DeviceNames } from '../../tools/device-names.ts';
import { editDefaultKernelopts } from '../../tools/grub-bls.ts';
import {
  type ArgumentChange,
  changeWords,
  DEFAULT_TIMEOUT_SECONDS,
  editLinuxLines,
  editTerminal,
  editTimeout,
  isAbsurdTimeout,
  SERIAL_COMMAND,
} from '../../tools/grub-edit.ts';
import { addArguments, splitArguments, withoutClashes } from '../../tools/kernel-arguments.ts';
import { lastAssignment, setVariable, unsetVariable } from '../../tools/shell-variables.ts';
import { blsEdits } from './bls.ts';
import type { UnitedNeeds } from './needs.ts';

const CMDLINE = 'GRUB_CMDLINE_LINUX';

interface TextFile {
  path: string;
  before: string;
  text: string;
}

/** What to do to `root=` and `resume=`: UUIDs, and no waiting for a swap that did not come along. */
function argumentChange(needs: UnitedNeeds, names: DeviceNames): ArgumentChange {
  return {
    add: needs.kernelArguments,
    verbose: needs.serialConsole,
    replace: (word, hasInitrd) => {
      const match = /^(root|resume)=(.*)$/.exec(word);
      const [, key, device = ''] = match ?? [];
      if (key === undefined) return word;
      const resolved = names.resolve(
        device,
        key === 'resume' ? 'swap' : undefined,
        key === 'root' ? '/' : undefined,
      );
      if (resolved.kind === 'known') {
        // Only an initramfs knows file system UUIDs; the kernel alone knows those of partitions.
        const spec =
          hasInitrd || !resolved.filesystem.partUuid
            ? resolved.spec
            : `PARTUUID=${resolved.filesystem.partUuid}`;
        return `${key}=${spec}`;
      }
      return key === 'resume' && resolved.kind !== 'stable' ? undefined : word;
    },
  };
}

/** Sets a variable in the last file that assigns it, else in the first file. */
function setIn(files: readonly TextFile[], name: string, value: string): void {
  const file = files.findLast((f) => lastAssignment(f.text, name) !== undefined) ?? files[0];
  if (file !== undefined) file.text = setVariable(file.text, name, value);
}

function valueIn(files: readonly TextFile[], name: string): string | undefined {
  const file = files.findLast((f) => lastAssignment(f.text, name) !== undefined);
  return file === undefined ? undefined : lastAssignment(file.text, name)?.value;
}

function editCommandLines(
  files: readonly TextFile[],
  change: ArgumentChange,
  warn: (text: string) => void,
): void {
  const none = { ...change, add: [] };
  for (const file of files) {
    for (const name of [CMDLINE, `${CMDLINE}_DEFAULT`, `${CMDLINE}_RECOVERY`]) {
      const found = lastAssignment(file.text, name);
      if (found === undefined) continue;
      if (found.value === undefined) {
        const raw = file.text.slice(found.start, found.end);
        if (/(?:root|resume)=\/dev\/(?:sd|hd|vd|nvme|disk)/.test(raw) || /\bquiet\b/.test(raw)) {
          warn(`${file.path}: ${name} has expansions; its device names and quiet stay`);
        }
        continue;
      }
      // Our arguments are added once, below; here they only move out of the way of a second run.
      const changed = changeWords(splitArguments(found.value), none, true);
      // GRUB puts the others behind CMDLINE_LINUX, and what cloud images set there would overrule ours.
      const words = name === CMDLINE ? changed : withoutClashes(changed, change.add);
      if (words.join(' ') !== splitArguments(found.value).join(' ')) {
        file.text = setVariable(file.text, name, words.join(' '));
      }
    }
  }
  const last = files.findLast((f) => lastAssignment(f.text, CMDLINE) !== undefined) ?? files[0];
  if (last === undefined || change.add.length === 0) return;
  const found = lastAssignment(last.text, CMDLINE);
  if (found !== undefined && found.value === undefined) {
    const ours = change.add.join(' ');
    const line = `${CMDLINE}="$${CMDLINE} ${ours}"`;
    if (!last.text.includes(line)) last.text = `${last.text.replace(/\n*$/, '\n')}${line}\n`;
    return;
  }
  const words = splitArguments(found?.value ?? '');
  const after = addArguments(words, change.add);
  if (after.join(' ') !== words.join(' ')) last.text = setVariable(last.text, CMDLINE, after.join(' '));
}

function editTerminals(files: readonly TextFile[], serial: boolean): void {
  for (const file of files) {
    for (const name of ['GRUB_TERMINAL_INPUT', 'GRUB_TERMINAL_OUTPUT'])
      file.text = unsetVariable(file.text, name);
  }
  setIn(files, 'GRUB_TERMINAL', serial ? 'console serial' : 'console');
  if (serial) setIn(files, 'GRUB_SERIAL_COMMAND', SERIAL_COMMAND);
}

/** Plans the edits of `/etc/default/grub`, its drop-ins and grub.cfg; reads only. */
export async function bootloaderEdits(
  guest: GuestFiles,
  facts: Facts,
  needs: UnitedNeeds,
  names: DeviceNames,
  warn: (text: string) => void,
): Promise<FileEdit[]> {
  if (facts.bootloader.kind === 'none') return [];
  const change = argumentChange(needs, names);
  const serial = needs.serialConsole && (await serialModule(guest, facts, warn));
  const edits: FileEdit[] = [];

  const files: TextFile[] = [];
  for (const path of [
    facts.bootloader.defaults ?? '/etc/default/grub',
    ...(await guest.glob('/etc/default/grub.d/*.cfg')),
  ]) {
    const before = await guest.readText(path);
    if (before !== undefined) files.push({ path, before, text: before });
  }
  if (files.length > 0) {
    editCommandLines(files, change, warn);
    if (needs.serialConsole) editTerminals(files, serial);
    if (isAbsurdTimeout(valueIn(files, 'GRUB_TIMEOUT') ?? '')) {
      setIn(files, 'GRUB_TIMEOUT', String(DEFAULT_TIMEOUT_SECONDS));
    }
    if (valueIn(files, 'GRUB_DISABLE_LINUX_UUID') === 'true')
      setIn(files, 'GRUB_DISABLE_LINUX_UUID', 'false');
    for (const file of files) {
      edits.push(
        ...textEdit(
          file.path,
          file.before,
          file.text,
          'the next update of the boot menu keeps our arguments',
        ),
      );
    }
  }

  const config = facts.bootloader.config ?? '/boot/grub/grub.cfg';
  const before = await guest.readText(config);
  if (before !== undefined) {
    let after = editDefaultKernelopts(editTimeout(editLinuxLines(before, change)), change);
    if (needs.serialConsole) after = editTerminal(after, serial);
    edits.push(
      ...textEdit(
        config,
        before,
        after,
        'kernel arguments of the platforms, serial console, UUIDs; all else stays',
      ),
    );
  }
  edits.push(...(await blsEdits(guest, config, change)));
  return edits;
}

/** A BIOS boot loader needs its serial module; on UEFI the firmware's console is enough. */
async function serialModule(guest: GuestFiles, facts: Facts, warn: (text: string) => void): Promise<boolean> {
  if (facts.firmware === 'uefi') return false;
  const folder = (facts.bootloader.config ?? '/boot/grub/grub.cfg').replace(/\/[^/]*$/, '');
  if ((await guest.kind(`${folder}/i386-pc/serial.mod`)) === 'file') return true;
  warn('the boot loader has no serial module: its menu will not appear on the serial console');
  return false;
}
