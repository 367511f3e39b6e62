/** Choosing packages from a folder the operator gives, for families whose repositories are not resolved on the host. */
import { PortError } from '../core/errors.ts';
import type { PackageSet } from './family.ts';

/** A package file on the host. */
export interface PoolPackage {
  name: string;
  version: string;
  architecture: string;
  file: string;
  bytes: number;
  /** Names and capabilities, without version conditions. */
  requires: readonly string[];
  /** Its own name is among them. */
  provides: readonly string[];
}

/** How a choice is made. */
export interface PoolChoice {
  pool: readonly PoolPackage[];
  wanted: readonly string[];
  /** Those of `names` the guest lacks. */
  missing(names: readonly string[]): Promise<ReadonlySet<string>>;
  /** Negative when a is older than b. */
  compareVersions(a: string, b: string): number;
  /** What to run on a machine of the same release to get the packages. */
  hint: string;
}

/** Rounds of dependencies of dependencies; real packages have fewer than ten. */
const MAX_ROUNDS = 50;

/**
 * The wanted packages the guest lacks and what they need from the pool. Requirements nobody in the pool gives are left to
 * the guest's own tool, which checks everything before it changes anything. Throws PACKAGES naming what is missing.
 */
export async function chooseFromPool(choice: PoolChoice): Promise<PackageSet> {
  const lacking = await choice.missing(choice.wanted);
  const requested = choice.wanted.filter((name) => lacking.has(name));
  const chosen = new Map<string, PoolPackage>();
  const absent = requested.filter((name) => provider(choice, name) === undefined);
  if (absent.length > 0) {
    throw new PortError(
      'PACKAGES',
      `the guest lacks ${absent.join(', ')}, and --packages has no such package`,
      {
        hint: choice.hint,
      },
    );
  }
  let open: readonly string[] = requested;
  for (let round = 0; open.length > 0 && round < MAX_ROUNDS; round++) {
    const added: PoolPackage[] = [];
    for (const name of open) {
      const found = provider(choice, name);
      if (found === undefined || chosen.has(found.name)) continue;
      chosen.set(found.name, found);
      added.push(found);
    }
    const given = new Set([...chosen.values()].flatMap((p) => p.provides));
    const needs = [...new Set(added.flatMap((p) => p.requires))].filter(
      (name) => !given.has(name) && provider(choice, name) !== undefined,
    );
    open = needs.length === 0 ? [] : [...(await choice.missing(needs))];
  }
  const packages = [...chosen.values()];
  return {
    files: packages.map((p) => p.file),
    packages: packages.map(({ name, version, architecture, bytes, provides }) => ({
      name,
      version,
      architecture,
      requested: requested.some((r) => r === name || provides.includes(r)),
      bytes,
    })),
  };
}

/** The newest package of that name, else one that gives it. */
function provider(choice: PoolChoice, name: string): PoolPackage | undefined {
  const newest = (list: readonly PoolPackage[]) =>
    list.toSorted((a, b) => choice.compareVersions(b.version, a.version) || (a.file < b.file ? -1 : 1))[0];
  return (
    newest(choice.pool.filter((p) => p.name === name)) ??
    newest(choice.pool.filter((p) => p.provides.includes(name)))
  );
}
