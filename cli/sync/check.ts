/** `port-image sync check`: a sync file before the first night. */
import type { Command } from 'commander';
import { silentLog } from '../../core/log.ts';
import { isoDate } from '../../core/sync/dates.ts';
import { printable } from '../../core/text.ts';
import { askPlaces, type PlaceAnswer } from '../../pipeline/sync/ask-places.ts';
import { stateDirOf } from '../../pipeline/sync/engine.ts';
import { loadSync, SyncFileError } from '../../pipeline/sync/load.ts';
import type { SyncFile } from '../../pipeline/sync/perform-types.ts';
import { closesInMs, isOpen, opensInMs } from '../../pipeline/sync/window.ts';
import { out, outJson, say } from '../output.ts';
import { withProgress } from '../progress.ts';
import type { Interruption } from '../signals.ts';
import { comingTimes, understood } from './understood.ts';

interface CheckFlags {
  json?: boolean;
  online?: boolean;
}

const SCHEMA = 'port-image/sync-check/1';

const EXAMPLES = `
Examples:
  port-image sync check nightly.yaml
  port-image sync check nightly.yaml --online

Exit status: 0 when all is well, 2 for a wrong file, otherwise that of the first place that refused.`;

/** Adds the subcommand. */
export function addCheck(sync: Command, interruption: Interruption): void {
  sync
    .command('check')
    .description('print what a sync file says, or everything that is wrong in it')
    .argument('<file>', 'sync.yaml')
    .option('--online', 'also log in everywhere and test the stores')
    .option('--json', 'end stdout with one JSON object')
    .addHelpText('after', EXAMPLES)
    .exitOverride()
    .action(async (name: string, _flags: CheckFlags, command: Command) => {
      // the parent has a --json of its own, which takes this one
      const { json = false, online = false } = command.optsWithGlobals<CheckFlags>();
      const file = await load(name, json);
      if (file === undefined) return;
      if (!json) for (const line of understood(file.config, facts(file))) out(printable(line));
      const answers = online ? await ask(file, interruption) : undefined;
      if (json) outJson(asJson(file, answers));
      else if (answers !== undefined) tell(answers);
      const failed = answers?.find(({ error }) => error !== undefined);
      if (failed?.error !== undefined) process.exitCode = failed.error.exitStatus;
    });
}

/** Undefined when the file is wrong, which is then told. */
async function load(name: string, json: boolean): Promise<SyncFile | undefined> {
  try {
    return await loadSync(name);
  } catch (error) {
    if (!(error instanceof SyncFileError)) throw error;
    const { problems, lines } = error;
    if (json) outJson({ schema: SCHEMA, file: name, ok: false, problems });
    else {
      for (const line of lines) out(line);
      say(
        `port-image: ${problems.length === 1 ? 'one thing is' : `${problems.length} things are`} wrong in ${printable(name)} [CONFIG]`,
      );
    }
    process.exitCode = error.exitStatus;
    return undefined;
  }
}

function facts(file: SyncFile): { path: string; state: string; now: Date } {
  return { path: file.path, state: stateDirOf(file), now: new Date() };
}

async function ask(file: SyncFile, { signal }: Interruption): Promise<PlaceAnswer[]> {
  return withProgress((progress) =>
    askPlaces(file, {
      stateDir: stateDirOf(file),
      signal,
      log: silentLog,
      progress: process.stderr.isTTY === true ? progress : () => {},
      warn: (text) => say(`warning: ${printable(text)}`),
    }),
  );
}

function tell(answers: readonly PlaceAnswer[]): void {
  out('');
  const width = Math.max(...answers.map(({ place }) => place.length));
  for (const { place, found, error } of answers) {
    const text =
      error === undefined
        ? `ok      ${place.padEnd(width)}  ${found}`
        : `failed  ${place.padEnd(width)}  ${error.message} [${error.code}]`;
    out(printable(text));
    if (error?.hint !== undefined) out(printable(`        ${''.padEnd(width)}  hint: ${error.hint}`));
  }
}

function asJson(file: SyncFile, answers: readonly PlaceAnswer[] | undefined): Record<string, unknown> {
  const { config } = file;
  const { path, state, now } = facts(file);
  const { window, schedule } = config;
  return {
    schema: SCHEMA,
    file: path,
    ok: answers?.every(({ error }) => error === undefined) ?? true,
    config: { ...config, state },
    ...(window === undefined
      ? {}
      : {
          window: {
            open: isOpen(window, now),
            changesInSeconds: Math.round(
              (isOpen(window, now) ? closesInMs(window, now) : opensInMs(window, now)) / 1000,
            ),
          },
        }),
    ...(schedule === undefined ? {} : { next: comingTimes(config, now).map(isoDate) }),
    ...(answers === undefined
      ? {}
      : {
          places: answers.map(({ place, found, error }) => ({
            place,
            ok: error === undefined,
            ...(found === undefined ? {} : { found }),
            ...(error === undefined ? {} : { code: error.code, message: error.message, hint: error.hint }),
          })),
        }),
  };
}
