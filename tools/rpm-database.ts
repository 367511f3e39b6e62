/**
 * The guest's rpm database, asked through the guest's own rpm: its format (Berkeley DB, ndb, SQLite) changes with the
 * distribution's age.
 */
import type { Facts } from '../core/facts.ts';
import type { GuestSession } from '../core/guest.ts';

const LIST = `LC_ALL=C rpm -qa --qf '%{NAME}\\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\\t%{ARCH}\\n'`;
/** rpm ends non-zero when something is not provided; what it says is the answer. */
const PROVIDED = `LC_ALL=C rpm -q --whatprovides --qf '' -- "$@" 2>&1 || true`;

/** Reads lines of name, version and architecture between tabs; keys (gpg-pubkey) are no packages. */
export function parseRpmList(output: string): Facts['packages'] {
  return output.split('\n').flatMap((line) => {
    const [name = '', version = '', architecture = ''] = line.split('\t');
    if (!/^[A-Za-z0-9_][\w.+-]*$/.test(name) || version === '' || name === 'gpg-pubkey') return [];
    return [{ name, version, architecture }];
  });
}

/** Installed packages. Throws GUEST_BROKEN when the database cannot be read. */
export async function rpmPackages(guest: GuestSession): Promise<Facts['packages']> {
  return parseRpmList(await guest.guest(LIST));
}

/** Those of `names` that rpm's answer says nothing provides. */
export function parseNotProvided(output: string, names: readonly string[]): Set<string> {
  const lines = new Set(output.split('\n').map((line) => line.trim()));
  return new Set(
    names.filter(
      (name) =>
        lines.has(`no package provides ${name}`) ||
        lines.has(`file ${name} is not owned by any package`) ||
        [...lines].some((l) => l.startsWith(`error: file ${name}: `) || l.startsWith(`file ${name}: `)),
    ),
  );
}

/** Those of `names` (packages or capabilities) the guest lacks. Throws GUEST_BROKEN. */
export async function rpmMissing(guest: GuestSession, names: readonly string[]): Promise<Set<string>> {
  // rpmlib() is rpm itself, and conditions in parentheses are judged by rpm when it installs.
  const asked = names.filter((name) => !/^\(|^rpmlib\(/.test(name));
  if (asked.length === 0) return new Set();
  return parseNotProvided(await guest.guest(PROVIDED, asked), asked);
}
