/** Rules that tie a card's name to the hardware of the old machine. */
import type { NetworkFacts } from '../../core/facts.ts';
import type { GuestFiles } from '../../core/guest.ts';
import type { FileEdit } from '../../families/family.ts';

/** Files that only ever hold such rules, or make them. */
const WHOLE_FILES: readonly string[] = [
  '/etc/udev/rules.d/70-persistent-net.rules',
  '/etc/udev/rules.d/75-persistent-net-generator.rules',
  '/etc/udev/rules.d/80-net-name-slot.rules.rpmsave',
  '/etc/udev/rules.d/85-persistent-net-cloud-init.rules',
  '/etc/udev/rules.d/z25_persistent-net.rules',
  '/etc/udev/rules.d/30-net_persistent_names.rules',
];
const WHY = 'ties the name of a network card to the hardware of the old machine';

/** Drops the rules of a udev file that name one of `macs`; continued lines count as one. */
export function withoutPins(text: string, macs: readonly string[]): string {
  const lower = macs.map((m) => m.toLowerCase());
  const rules = text.match(/(?:[^\n]*\\\n)*[^\n]*(?:\n|$)/g) ?? [];
  return rules
    .filter(
      (rule) =>
        rule.startsWith('#') ||
        !(/\bNAME\s*=/.test(rule) && lower.some((m) => rule.toLowerCase().includes(m))),
    )
    .join('');
}

/** Plans the removal of every pin whose MAC is not in `keepMacs`. */
export async function pinEdits(
  guest: GuestFiles,
  facts: NetworkFacts,
  keepMacs: readonly string[],
): Promise<FileEdit[]> {
  const kept = new Set(keepMacs.map((m) => m.toLowerCase()));
  const old = facts.pins.filter((p) => !kept.has(p.mac.toLowerCase()));
  const paths = new Set([...old.map((p) => p.file), ...WHOLE_FILES]);
  const edits: FileEdit[] = [];
  for (const path of paths) {
    // Links to /dev/null switch a distribution's rule off; they pin nothing.
    if ((await guest.kind(path)) !== 'file') continue;
    const before = await guest.readText(path);
    if (before === undefined) continue;
    const whole = path.endsWith('.link') || (WHOLE_FILES.includes(path) && kept.size === 0);
    const after = whole
      ? undefined
      : withoutPins(
          before,
          old.map((p) => p.mac),
        );
    if (after !== before) edits.push({ path, before, after, why: WHY });
  }
  return edits;
}
