/** A running machine as the source: over ssh, or this machine itself. See docs/capture-live.md. */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { assetPath } from '../../core/assets.ts';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { BlockMemory } from './block-memory.ts';
import { Connection } from './connection.ts';
import { type Lane, openRemoteDisk } from './disk.ts';
import { freeze, thaw } from './freeze.ts';
import { parseInventory } from './inventory/index.ts';
import { RateLimit } from './rate-limit.ts';
import type { HookOutcome, MachineOptions, MachineTarget, RunResult, SourceMachine } from './types.ts';

export type * from './types.ts';

/** Output of a command that is kept. */
const MAX_OUTPUT_BYTES = 1024 * 1024;

/** As the helper's payload allows. */
const MAX_INVENTORY_BYTES = 4 * 1024 * 1024;

/** A machine with a dead disk or server answers slowly: each program has 20 s. */
const INVENTORY_MS = 180_000;

/** Blocks kept for reuse on each disk's connection: those in flight and the one in the caller's hands. */
const KEPT_BLOCKS = 8;

/** The time the transport has after the command's own. */
const GRACE_MS = 30_000;

async function runScript(
  connection: Connection,
  script: string,
  timeoutMs: number,
  maxBytes = MAX_OUTPUT_BYTES,
): Promise<RunResult & { timedOut: boolean; cut: boolean }> {
  const timer = setTimeout(() => void connection.close(), timeoutMs + GRACE_MS);
  try {
    const { fields, payload } = await connection.call(
      `command on ${connection.name}`,
      [
        ['op', 'sh'],
        ['timeout', timeoutMs],
        ['max', maxBytes],
      ],
      Buffer.from(script),
    );
    return {
      exitCode: Number(fields.get('status')),
      output: payload.toString(),
      timedOut: fields.get('timedout') === '1',
      cut: fields.get('cut') === '1',
    };
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Connects to the machine and starts the helper there. Throws SOURCE_REMOTE (unknown host key, refused login, no sudo, not
 * reachable: the last is temporary), CONFIG, PROGRAM_MISSING, INTERRUPTED.
 */
export async function openMachine(
  target: MachineTarget,
  options: MachineOptions = {},
): Promise<SourceMachine> {
  const limit =
    options.limitBytesPerSecond === undefined ? undefined : new RateLimit(options.limitBytesPerSecond);
  // a freeze at idle priority would last as long as others read
  const control = await Connection.open(target, { ...options, limit, lowPriority: false });
  const lanes = new Set<Lane>();
  const idle: { lane: Lane; lowPriority: boolean }[] = [];
  const takeLane = async (lowPriority: boolean): Promise<Lane> => {
    // a connection that was used already needs no login, which would hang while file systems are frozen
    const at = idle.findIndex((i) => i.lowPriority === lowPriority && i.lane.connection.idle());
    const [used] = at === -1 ? [] : idle.splice(at, 1);
    if (used !== undefined) return used.lane;
    const memory = new BlockMemory(KEPT_BLOCKS);
    const connection = await Connection.open(target, {
      ...options,
      limit,
      lowPriority,
      takeBuffer: (n) => memory.take(n),
    });
    const lane: Lane = {
      connection,
      memory,
      release: async () => {
        if (connection.idle() && lanes.has(lane)) {
          if (!idle.some((i) => i.lane === lane)) idle.push({ lane, lowPriority });
          return;
        }
        lanes.delete(lane);
        await connection.close();
      },
    };
    lanes.add(lane);
    return lane;
  };
  let told: HookOutcome[] = [];
  return {
    name: control.name,
    language: control.language,
    connected: () => control.connected(),
    async inventory() {
      const mark = randomBytes(8).toString('hex');
      const script = `mark=${mark}\n${readFileSync(assetPath('remote/inventory.sh'), 'utf8')}`;
      const { output } = await runScript(control, script, INVENTORY_MS, MAX_INVENTORY_BYTES);
      return parseInventory(output, mark);
    },
    async disk(device, diskOptions = {}) {
      const lane = await takeLane(diskOptions.lowPriority ?? options.lowPriority ?? true);
      try {
        return await openRemoteDisk(lane, device, {
          compress: options.compress ?? 'auto',
          allowRegularFiles: options.allowRegularFiles ?? false,
        });
      } catch (error) {
        await lane.release();
        throw error;
      }
    },
    async run(command, timeoutMs) {
      const { exitCode, output, timedOut } = await runScript(control, command, timeoutMs);
      if (timedOut) {
        throw new PortError(
          'TIMEOUT',
          `the command on ${control.name} did not end within ${timeoutMs / 1000} s`,
          {
            hint: printable(output.trim().split('\n').at(-1) ?? '').slice(0, 300),
          },
        );
      }
      return { exitCode, output };
    },
    async freeze(freezeOptions) {
      const result = await freeze(control, freezeOptions);
      told = result.hooks;
      return result;
    },
    thaw: () => thaw(control, told),
    async close() {
      const open = [...lanes];
      lanes.clear();
      await Promise.all(open.map((lane) => lane.connection.close()));
      await control.close();
    },
  };
}
