/** Keeping the old machine's configuration as a record in the image, out of the way of the new one. */
import type { GuestFiles } from '../../core/guest.ts';
import { withoutSecrets } from '../../core/text.ts';
import type { FileEdit } from '../../families/family.ts';
import { MARK } from './dhcp.ts';
import { RECORD_DIR, systemOf } from './paths.ts';

/** Files with keys or passwords in them keep their content out of the journal. */
function isSecret(path: string, text: string): boolean {
  return systemOf(path) === 'networkmanager' || /password|psk|private-?key/i.test(text);
}

/** Copies a file below RECORD_DIR and removes the original; nothing for files we wrote ourselves. */
export async function setAside(guest: GuestFiles, path: string): Promise<FileEdit[]> {
  if ((await guest.kind(path)) !== 'file') return [];
  const before = await guest.readText(path);
  if (before === undefined || before.includes(MARK)) return [];
  const secret = isSecret(path, before) ? { secret: true } : {};
  const mode = await guest.mode(path);
  return [
    {
      path: `${RECORD_DIR}${path}`,
      before: undefined,
      after: before,
      why: 'record of the old configuration',
      mode,
      ...secret,
    },
    { path, before, after: undefined, why: 'static configuration of the old machine, set aside', ...secret },
  ];
}

/** Commands an ifupdown stanza ran; they do not run any more. */
export function hookCommands(text: string): string[] {
  return [...text.matchAll(/^\s*(?:pre-up|up|post-up|down|pre-down|post-down)\s+(.+)$/gm)].map((m) =>
    withoutSecrets(m[1] ?? ''),
  );
}
