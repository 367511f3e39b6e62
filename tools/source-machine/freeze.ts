/** Freezes the file systems of a source machine, and tells what came of it. */
import { readFileSync, realpathSync, statSync } from 'node:fs';
import { assetPath } from '../../core/assets.ts';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { type MountLine, parseMountinfo } from '../mounted.ts';
import type { Connection } from './connection.ts';
import type { FreezeOptions, FreezeResult, HookOutcome, ThawResult } from './types.ts';

const DEFAULT_HOOK_TIMEOUT_MS = 30_000;

/** Lines `hook NAME ok|failed TEXT` of remote/freeze-hooks.sh. */
export function parseHooks(output: string): HookOutcome[] {
  return output.split('\n').flatMap((line) => {
    const match = /^hook ([a-z0-9-]+) (ok|failed) ?(.*)$/.exec(line);
    return match?.[1] === undefined
      ? []
      : [{ name: match[1], ok: match[2] === 'ok', text: printable(match[3] ?? '').trim() }];
  });
}

function warningsOf(hooks: readonly HookOutcome[], late: boolean): string[] {
  return [
    ...hooks.filter((h) => !h.ok).map((h) => `${h.name} failed: ${h.text}`),
    ...(late ? ['the hooks did not end in time'] : []),
  ];
}

/** The device a path lies on, as its mount names it: subvolumes of one btrfs have numbers of their own. */
function mountedFrom(file: string, mounts: readonly MountLine[]): string | undefined {
  // by way of another process: its mounts are not ours
  if (file.startsWith('/proc/')) return undefined;
  const real = realpathSync(file);
  const above = mounts.filter(
    (m) => m.target === '/' || real === m.target || real.startsWith(`${m.target}/`),
  );
  const longest = Math.max(...above.map((m) => m.target.length));
  const source = above.findLast((m) => m.target.length === longest)?.source;
  return source?.startsWith('/') ? source : undefined;
}

/** A path on a file system that is to be frozen while we write to it would hold up ourselves for ever. */
function refuseOwn(options: FreezeOptions): void {
  const mounts = parseMountinfo(readFileSync('/proc/self/mountinfo', 'utf8'));
  for (const own of options.keepWritable ?? []) {
    const device = statSync(own).dev;
    const source = mountedFrom(own, mounts);
    const frozen = options.mountPoints.find((m) => {
      const there = statSync(m, { throwIfNoEntry: false });
      if (there === undefined) return false;
      return there.dev === device || (source !== undefined && mountedFrom(m, mounts) === source);
    });
    if (frozen !== undefined) {
      throw new PortError(
        'USAGE',
        `${printable(frozen)} cannot be frozen: ${own} lies on it and is written to`,
        {
          hint: 'put the job folder on another file system than the ones that are captured, or do without a freeze',
        },
      );
    }
  }
}

/** As SourceMachine.freeze. */
export async function freeze(connection: Connection, options: FreezeOptions): Promise<FreezeResult> {
  if (connection.target.kind === 'host') refuseOwn(options);
  const hooks = options.hooks === false ? undefined : readFileSync(assetPath('remote/freeze-hooks.sh'));
  const { fields, payload } = await connection.call(
    `freeze on ${connection.name}`,
    [
      ['op', 'freeze'],
      ['timeout', options.timeoutMs],
      ['hooktimeout', options.hookTimeoutMs ?? DEFAULT_HOOK_TIMEOUT_MS],
      ...options.mountPoints.map((m) => ['mount', m] as const),
    ],
    hooks,
  );
  const outcomes = parseHooks(payload.toString());
  return {
    frozen: fields.getAll('frozen'),
    skipped: fields.getAll('skipped').map((text) => {
      const at = text.lastIndexOf('\n');
      return { mountPoint: text.slice(0, at), reason: printable(text.slice(at + 1)) };
    }),
    hooks: outcomes,
    warnings: warningsOf(outcomes, fields.get('late') === '1'),
  };
}

/** Why the watchdog ended a freeze, as the helper says it. */
const EARLY: Readonly<Record<string, string>> = {
  timeout: 'the time for the freeze was over',
  connection: 'the connection was lost',
  helper: 'the helper died',
  lost: 'the watchdog was killed',
  elsewhere: 'somebody else thawed it',
};

/** As SourceMachine.thaw; hooks that were told by freeze already are left out. */
export async function thaw(connection: Connection, told: readonly HookOutcome[]): Promise<ThawResult> {
  const { fields, payload } = await connection.call(`thaw on ${connection.name}`, [['op', 'thaw']]);
  const how = fields.get('how') ?? '';
  const hooks = parseHooks(payload.toString()).slice(told.length);
  return {
    frozenMs: Number(fields.get('ms')),
    early: how !== 'told',
    reason: how === 'told' ? undefined : (EARLY[how] ?? printable(how)),
    hooks,
    warnings: warningsOf(hooks, fields.get('late') === '1'),
  };
}
