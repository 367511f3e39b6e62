/** What differs per distribution family inside a guest. One folder each; `families/registry.ts` lists them. */
import type { Facts, Kernel } from '../core/facts.ts';
import type { GuestFiles, GuestSession } from '../core/guest.ts';
import type { Log } from '../core/log.ts';
import type { AgentRole } from '../core/platform.ts';

/** Packages ready on the host to be installed without network. */
export interface PackageSet {
  /** Host files, in no particular order. */
  files: string[];
  /** What each is. `requested` marks those asked for; the rest are dependencies. */
  packages: {
    name: string;
    version: string;
    architecture: string;
    requested: boolean;
    bytes: number;
    /** Version installed in the guest now, when a dependency forces an upgrade. */
    replaces?: string;
  }[];
}

/** How to resolve packages on the host. */
export interface ResolveOptions {
  /** Folder with packages to use instead of the network. */
  offlinePool?: string | undefined;
  /** Shared download cache, `~/.cache/port-image/packages`. */
  cacheDir: string;
  /** Scratch folder of this run. */
  tmpDir: string;
  signal: AbortSignal;
  log: Log;
  /** Of the names, those that are left out with a warning when the sources do not have them or they do not fit. */
  optional?: readonly string[];
  /** Tells the user something (a source left out, old lists used). */
  warn?: (text: string) => void;
}

/** One file edit a family wants; the stage applies and records it. `after: undefined` removes the file. */
export interface FileEdit {
  path: string;
  before: string | undefined;
  after: string | undefined;
  why: string;
  mode?: number;
  /** True when the content must not appear in the journal or the report. */
  secret?: boolean;
}

/** How an initramfs was built. */
export interface InitramfsBuild {
  /**
   * Set when the guest's tool was asked to compress as little as it can, because that is slow in the appliance: the level
   * the guest would have used. The caller compresses the same content with it on the host.
   */
  repackLevel?: number;
}

/** A distribution family. */
export interface Family {
  readonly name: string;
  /** True when this family handles the guest. */
  matches(os: Facts['os']): boolean;
  /** Package names of a role, or [] when the family has none. */
  packagesFor(role: AgentRole, facts: Facts): readonly string[];
  /** Resolves against the guest's own package database and sources, on the host. Throws PACKAGES. */
  resolvePackages(
    guest: GuestSession,
    names: readonly string[],
    options: ResolveOptions,
  ): Promise<PackageSet>;
  /** Installs a set in the appliance, no services started, no initramfs rebuilt. Throws GUEST_BROKEN. */
  installPackages(guest: GuestSession, set: PackageSet, log: Log, signal?: AbortSignal): Promise<void>;
  /** Removes (not purges) packages with the guest's own tool. Throws GUEST_BROKEN. */
  removePackages(guest: GuestSession, names: readonly string[]): Promise<void>;
  /** Persistent configuration so this and every later initramfs holds `modules`. */
  configureInitramfs(guest: GuestFiles, modules: readonly string[], facts: Facts): Promise<FileEdit[]>;
  /** Answers and files that make later updates of the boot loader packages work on another machine. */
  configureBootloader(guest: GuestFiles, facts: Facts): Promise<FileEdit[]>;
  /** Packages whose presence forbids removing another: `ubuntu-server` depends on open-vm-tools. */
  keepsPackage(name: string, facts: Facts): string | undefined;
  /** Rebuilds the initramfs of one kernel with the guest's own tool. Throws GUEST_BROKEN. */
  rebuildInitramfs(guest: GuestSession, kernel: Kernel): Promise<InitramfsBuild>;
}
