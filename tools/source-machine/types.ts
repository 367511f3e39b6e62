/** What a source machine offers: a running computer whose disks are read, over ssh or here. */
import type { DiskSource } from '../../core/disk-source.ts';
import type { Inventory } from '../../core/inventory.ts';
import type { Log } from '../../core/log.ts';

/** Which machine. */
export type MachineTarget =
  /** Over ssh; user and port undefined: as ssh's own configuration says. */
  | { kind: 'ssh'; host: string; user: string | undefined; port: number | undefined }
  /** The machine this program runs on, by the same helper. */
  | { kind: 'host' };

/** How to reach it and how to treat it. */
export interface MachineOptions {
  /** Stops everything that is under way: INTERRUPTED. */
  signal?: AbortSignal | undefined;
  log?: Log | undefined;
  /** Private key to use and no other; otherwise what ssh finds (agent, ~/.ssh). */
  sshIdentity?: string | undefined;
  /** Configuration of ssh instead of ~/.ssh/config. */
  sshConfig?: string | undefined;
  /** Compression in flight; default `auto`: when it makes the whole faster. */
  compress?: 'auto' | 'never' | 'always' | undefined;
  /** Most bytes a second over all connections to this machine together. */
  limitBytesPerSecond?: number | undefined;
  /** Reads disks at idle I/O priority and nice 10, where the machine has the programs; default true. */
  lowPriority?: boolean | undefined;
  /** From the start of a connection until its helper answers; default 60 s. */
  openTimeoutMs?: number | undefined;
  /** Language of the helper; default: python3, else perl. */
  language?: 'python' | 'perl' | undefined;
  /** Lets a regular file stand for a device; for tests. */
  allowRegularFiles?: boolean | undefined;
}

/** What a command on the machine left. */
export interface RunResult {
  /** Exit status, negative when a signal ended it. */
  exitCode: number;
  /** stdout and stderr together, at most 1 MiB; hostile text. */
  output: string;
}

/** What to freeze, and for how long at most. */
export interface FreezeOptions {
  /** Mount points of writable file systems; frozen innermost first. */
  mountPoints: readonly string[];
  /** The watchdog thaws after this time, whatever happens. */
  timeoutMs: number;
  /** Quiesce databases (qemu-guest-agent's hook, PostgreSQL, MySQL) first; default true. */
  hooks?: boolean | undefined;
  /** Time the hooks have; default 30 s. */
  hookTimeoutMs?: number | undefined;
  /**
   * Only for `host`: paths this program writes to meanwhile (job folder, temporary folder). A file system that holds one is
   * never frozen: USAGE.
   */
  keepWritable?: readonly string[] | undefined;
}

/** How one hook ended. */
export interface HookOutcome {
  /** Such as `postgresql-5432`, `mysql`, `fsfreeze-hook-freeze`. */
  name: string;
  ok: boolean;
  /** One printable line. */
  text: string;
}

/** What a freeze did. Nothing frozen is no error: `frozen` is empty then. */
export interface FreezeResult {
  /** Mount points that are frozen, in the order they were. */
  frozen: string[];
  /** Those that are not, and why (a type that cannot be, frozen by somebody else); they are only synced. */
  skipped: { mountPoint: string; reason: string }[];
  hooks: HookOutcome[];
  /** Printable: hooks that failed or took too long. */
  warnings: string[];
}

/** What a thaw found. */
export interface ThawResult {
  /** From the first file system's freeze to the last one's thaw, by the machine's clock. */
  frozenMs: number;
  /** True: the watchdog thawed before this call, so what was read after it is not consistent. */
  early: boolean;
  /** Printable; why it thawed early. */
  reason: string | undefined;
  hooks: HookOutcome[];
  warnings: string[];
}

/** What may differ for one disk. */
export interface DiskOptions {
  /** As MachineOptions.lowPriority, for this disk's connection. */
  lowPriority?: boolean | undefined;
}

/** A source machine with an open connection. Every method throws SOURCE_REMOTE when the connection is gone. */
export interface SourceMachine {
  /** Printable: `admin@shop01`, `this machine`. */
  readonly name: string;
  /** What runs on the machine: its language decides the speed. */
  readonly language: 'python' | 'perl';
  /** False when the connection is gone: the machine has to be opened again. */
  connected(): boolean;
  /** Static facts; reads only. Strings in it are hostile. */
  inventory(): Promise<Inventory>;
  /**
   * Opens a disk over a connection of its own, at once: while file systems are frozen a login hangs on the source's own log
   * files, so as many disks as are read in a freeze are opened before it. A closed disk leaves its connection to the next one.
   * Throws SOURCE_REMOTE, NOT_A_DISK.
   */
  disk(device: string, options?: DiskOptions): Promise<DiskSource>;
  /**
   * Runs a command line of the operator by `sh`, stdin closed, not visible in the process list. A status other than 0 is no
   * error here. Throws SOURCE_REMOTE, TIMEOUT (its process group is killed then).
   */
  run(command: string, timeoutMs: number): Promise<RunResult>;
  /** Freezes file systems; see docs/capture-live.md. Throws SOURCE_REMOTE, USAGE. */
  freeze(options: FreezeOptions): Promise<FreezeResult>;
  /** Ends a freeze. Throws SOURCE_REMOTE; the file systems are thawed by the watchdog in this case too. */
  thaw(): Promise<ThawResult>;
  /** Ends all connections; a freeze ends with them. */
  close(): Promise<void>;
}
