/** A running machine as a source: over ssh, or this one. */
import type { DiskSource } from '../../core/disk-source.ts';
import { asPortError, PortError } from '../../core/errors.ts';
import type { Inventory } from '../../core/inventory.ts';
import { pause } from '../../core/pause.ts';
import type { Source } from '../../core/source.ts';
import { printable } from '../../core/text.ts';
import type { Consistency } from '../../core/types.ts';
import { openMachine, type SourceMachine } from '../../tools/source-machine/index.ts';
import type { CaptureContext } from './context.ts';
import { diskIds } from './disk-ids.ts';
import type { Hold, LiveDisk, LiveSource } from './live.ts';
import { devicePath, writtenMounts } from './written.ts';

/** A source that is a machine. */
export type MachineSource = Extract<Source, { kind: 'ssh' | 'host' }>;

/** A user's command may take this long; it stops services. */
const COMMAND_MS = 10 * 60_000;
/** After Ctrl-C there is not more time than this to start the user's services again. */
const INTERRUPTED_MS = 8_000;
/** A connection that broke is opened again after 1, 2, 4, … 32 seconds: a minute in all. */
const FIRST_DELAY_MS = 1_000;
const LAST_DELAY_MS = 32_000;
/** File systems that cannot be frozen and hardly ever change: the boot loader's partition. */
const NEVER_FROZEN: readonly string[] = ['vfat', 'msdos', 'exfat'];

class Machine implements LiveSource {
  readonly name: string;
  disks: readonly LiveDisk[] = [];
  inventory: Inventory | undefined;
  readonly #ctx: CaptureContext;
  readonly #source: MachineSource;
  #machine: SourceMachine | undefined;
  /** Devices whose file systems stand still. */
  #frozen: ReadonlySet<string> = new Set();
  /** Something may have been stopped that the operator's command starts again. */
  #mustResume = false;

  constructor(ctx: CaptureContext, source: MachineSource) {
    this.#ctx = ctx;
    this.#source = source;
    this.name = printable(source.kind === 'ssh' ? source.host : 'this machine');
  }

  async start(): Promise<void> {
    const inventory = await this.#ask((m) => m.inventory());
    this.inventory = inventory;
    const devices = devicesOf(inventory, this.#source, this.name);
    const ids = diskIds(inventory, devices);
    this.disks = await Promise.all(
      devices.map(async (device, i) => {
        const disk = await this.#open(device, true);
        const { sizeBytes } = disk;
        await disk.close();
        return { id: ids[i] ?? device, device, sizeBytes, open: () => this.#open(device, true) };
      }),
    );
  }

  /** The connection; a new one when the old one broke. */
  async #connect(): Promise<SourceMachine> {
    if (this.#machine?.connected() === false) {
      await this.#machine.close();
      this.#machine = undefined;
    }
    this.#machine ??= await this.#newConnection(this.#ctx.signal);
    return this.#machine;
  }

  #newConnection(signal: AbortSignal): Promise<SourceMachine> {
    const { sshConfig, sshIdentity, limitBytesPerSecond } = this.#ctx.request.capture;
    return openMachine(this.#source, {
      signal,
      log: this.#ctx.log,
      sshConfig,
      sshIdentity,
      limitBytesPerSecond,
    });
  }

  /** Asks the machine. One that answered before is given time to come back; one that never did is told at once. */
  async #ask<T>(question: (machine: SourceMachine) => Promise<T>): Promise<T> {
    for (let delayMs = FIRST_DELAY_MS; ; delayMs *= 2) {
      try {
        return await question(await this.#connect());
      } catch (error) {
        const isBreak = error instanceof PortError && error.code === 'SOURCE_REMOTE' && error.temporary;
        if (!isBreak || this.inventory === undefined || delayMs > LAST_DELAY_MS) throw error;
        this.#ctx.log.warn('asking again', { message: error.message, delayMs });
        await pause(delayMs, this.#ctx.signal);
      }
    }
  }

  async #open(device: string, lowPriority: boolean): Promise<DiskSource> {
    return (await this.#connect()).disk(device, { lowPriority });
  }

  /** File systems through which the machine writes to the captured disks now. */
  async #written(): Promise<Inventory['mounts']> {
    const inventory = await this.#ask((m) => m.inventory());
    this.inventory = inventory;
    return writtenMounts(
      inventory,
      this.#wanted.map((d) => d.device),
    );
  }

  async consistency(): Promise<Consistency> {
    return (await this.#written()).length > 0 ? 'live' : 'offline';
  }

  async hold(): Promise<Hold> {
    // a login writes logs and would hang while the file systems stand still: all connections are made before
    const opened = new Map<string, DiskSource>();
    try {
      for (const { id, device } of this.#wanted) opened.set(id, await this.#open(device, false));
      this.#mustResume = true;
      await this.#command(this.#ctx.request.capture.quiesce, '--quiesce');
      if (this.#freezes) await this.#freeze();
    } catch (error) {
      await Promise.all([...opened.values()].map((d) => d.close()));
      await this.#letGo().catch(() => {}); // it has warned
      throw error;
    }
    return {
      consistency: this.#freezes ? 'frozen' : 'live',
      frozen: uuidsOf(this.inventory, this.#frozen),
      open: async (id) => {
        const disk = opened.get(id);
        opened.delete(id);
        if (disk !== undefined) return disk;
        throw new PortError('SOURCE_REMOTE', `the connection to ${this.name} broke during the last pass`, {
          hint: 'run it again: what was read is kept',
        });
      },
      release: async () => {
        try {
          if (!this.#freezes) return undefined;
          const frozenMs = await this.#thaw();
          await this.#requireNoneNew();
          return frozenMs;
        } finally {
          await Promise.all([...opened.values()].map((d) => d.close()));
          await this.#letGo();
        }
      },
    };
  }

  async #freeze(): Promise<void> {
    const mounts = await this.#written();
    const { frozen, skipped, warnings } = await (await this.#connect()).freeze({
      mountPoints: mounts.map((m) => m.mountPoint),
      timeoutMs: this.#ctx.request.capture.maxFreezeSeconds * 1000,
      keepWritable: [this.#ctx.paths.dir],
    });
    for (const text of warnings) this.#ctx.warn(`${this.name}: ${text}`);
    for (const { mountPoint, reason } of skipped) {
      const type = mounts.find((m) => m.mountPoint === mountPoint)?.type ?? '';
      if (NEVER_FROZEN.includes(type)) continue;
      await this.#thaw().catch(() => {});
      throw new PortError(
        'LIVE_SOURCE',
        `${printable(mountPoint)} (${printable(type)}) on ${this.name} cannot be frozen: ${reason}`,
        { hint: 'stop what writes there with --quiesce and take it as it is with --freeze none' },
      );
    }
    const still = new Set(frozen);
    this.#frozen = new Set(mounts.filter((m) => still.has(m.mountPoint)).map((m) => m.device));
    const untold = mounts.find(
      (m) => !still.has(m.mountPoint) && !skipped.some((s) => s.mountPoint === m.mountPoint),
    );
    this.#ctx.log.info('source holds still', { frozen: frozen.join(' ') });
    if (untold === undefined) return;
    await this.#thaw().catch(() => {});
    // its place is covered by another mount: that one was frozen in its place
    throw new PortError(
      'LIVE_SOURCE',
      `${printable(untold.mountPoint)} (${printable(untold.device)}) on ${this.name} cannot be reached to be frozen`,
      { hint: 'unmount what is mounted over it, or take it as it is with --freeze none' },
    );
  }

  async #thaw(): Promise<number> {
    const { frozenMs, early, reason, warnings } = await (await this.#connect()).thaw();
    for (const text of warnings) this.#ctx.warn(`${this.name}: ${text}`);
    if (!early) return frozenMs;
    throw new PortError(
      'LIVE_SOURCE',
      `${this.name} went on before the last pass was through: ${reason ?? 'its watchdog thawed it'}`,
      { hint: 'run it again: the next last pass has less to send; or allow more with --max-freeze' },
    );
  }

  /** What was mounted after the freeze began went on meanwhile. */
  async #requireNoneNew(): Promise<void> {
    const found = (await this.#written()).find(
      (m) => !this.#frozen.has(m.device) && !NEVER_FROZEN.includes(m.type),
    );
    if (found === undefined) return;
    throw new PortError(
      'LIVE_SOURCE',
      `${printable(found.mountPoint)} was mounted on ${this.name} during the last pass, and not frozen`,
      { hint: 'run it again' },
    );
  }

  get #wanted(): LiveDisk[] {
    return this.disks.filter((d) => this.#ctx.request.disks[d.id] !== 'skip');
  }

  get #freezes(): boolean {
    return this.#ctx.request.capture.freeze === 'auto';
  }

  /** Starts again what --quiesce stopped; also when we are interrupted, over a connection that the interrupt does not end. */
  async #letGo(): Promise<void> {
    const command = this.#ctx.request.capture.resume;
    if (command === undefined || !this.#mustResume) return;
    this.#mustResume = false;
    try {
      if (this.#ctx.signal.aborted) {
        await this.#machine?.close();
        this.#machine = await this.#newConnection(AbortSignal.timeout(INTERRUPTED_MS));
      }
      await this.#command(command, '--resume-command');
    } catch (error) {
      // whatever else went wrong is told instead: this must not be lost
      this.#ctx.warn(
        `${this.name}: --resume-command was not run to its end, what --quiesce stopped may stand still: ${asPortError(error).message}`,
      );
      throw error;
    }
  }

  async #command(command: string | undefined, flag: string): Promise<void> {
    if (command === undefined) return;
    this.#ctx.progress({ text: `${this.name}: ${flag}` });
    const { exitCode, output } = await this.#ask((m) => m.run(command, COMMAND_MS));
    if (exitCode === 0) return;
    const last = output.trim().split('\n').at(-1) ?? '';
    throw new PortError(
      'LIVE_SOURCE',
      `${flag} failed with status ${exitCode} on ${this.name}: ${printable(last).slice(0, 300)}`,
      { hint: 'try the command on the source by hand' },
    );
  }

  async close(): Promise<void> {
    await this.#machine?.close();
  }
}

/** UUIDs of what devices hold. One that is not known is left out: what has it counts as not frozen and is read whole in doubt. */
function uuidsOf(inventory: Inventory | undefined, devices: ReadonlySet<string>): Set<string> {
  const held = inventory?.devices.filter((d) => devices.has(d.name)) ?? [];
  return new Set(held.flatMap(({ uuid }) => (uuid === undefined ? [] : [uuid.toLowerCase()])));
}

/** The devices that were named, else all whole disks of the machine. */
function devicesOf(inventory: Inventory, source: MachineSource, name: string): string[] {
  if (source.devices.length > 0) return source.devices;
  const all = inventory.disks.map((d) => devicePath(d.name));
  if (all.length > 0) return all;
  throw new PortError('SOURCE_REMOTE', `${name} shows no disk`, { hint: 'name one: ssh://host/dev/sda' });
}

/** Connects, reads the inventory and finds the disks. Throws SOURCE_REMOTE. */
export async function openMachineSource(ctx: CaptureContext, source: MachineSource): Promise<LiveSource> {
  const machine = new Machine(ctx, source);
  try {
    await machine.start();
    return machine;
  } catch (error) {
    await machine.close();
    throw error;
  }
}
