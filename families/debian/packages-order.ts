/**
 * The order of installation. dpkg unpacks all packages of one call and then configures them, so a package may share a call
 * with what it depends on, but not with what it pre-depends on: that has to be configured before.
 */

/** What decides the order of one package. */
export interface OrderEntry {
  name: string;
  /** Names (own and provided) it depends on. */
  depends: readonly string[];
  preDepends: readonly string[];
  provides: readonly string[];
}

/** Names in a relation field; every alternative counts. */
export function relationNames(field: string | undefined): string[] {
  return (field ?? '')
    .split(/[,|]/)
    .map((part) => /^\s*([a-z0-9][a-z0-9+.-]*)/.exec(part)?.[1] ?? '')
    .filter((name) => name !== '');
}

/**
 * Indexes of `entries` in as few calls of dpkg as possible. Rule: a call comes not before those of dependencies, and after
 * those of pre-dependencies.
 */
export function installCalls(entries: readonly OrderEntry[]): number[][] {
  const byName = new Map<string, number[]>();
  for (const [index, entry] of entries.entries()) {
    for (const name of [entry.name, ...entry.provides])
      byName.set(name, [...(byName.get(name) ?? []), index]);
  }
  const level = entries.map(() => 0);
  // Each pass settles at least one level; a cycle through Pre-Depends (policy forbids it) must not run on.
  for (let pass = 0, moved = true; moved && pass <= entries.length; pass++) {
    moved = false;
    for (const [index, entry] of entries.entries()) {
      const least = Math.max(
        0,
        ...levels(entry.depends, byName, level, index),
        ...levels(entry.preDepends, byName, level, index).map((l) => l + 1),
      );
      if (least > (level[index] ?? 0) && least < entries.length) {
        level[index] = least;
        moved = true;
      }
    }
  }
  const calls: number[][] = [];
  for (const [index, l] of level.entries()) {
    const call = calls[l] ?? [];
    call.push(index);
    calls[l] = call;
  }
  return calls.filter((call) => call !== undefined);
}

function levels(
  names: readonly string[],
  byName: ReadonlyMap<string, number[]>,
  level: readonly number[],
  self: number,
): number[] {
  return names.flatMap((name) =>
    (byName.get(name) ?? []).filter((i) => i !== self).map((i) => level[i] ?? 0),
  );
}
