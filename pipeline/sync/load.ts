/** Reads `sync.yaml`. Everything wrong in it is found at once, each with its line. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { asPortError, PortError } from '../../core/errors.ts';
import { MIB } from '../../core/sizes.ts';
import { SyncConfig } from '../../core/sync/config.ts';
import { printable } from '../../core/text.ts';
import { type Problem, readYaml, type YamlText } from './file/document.ts';
import { withoutWrong } from './file/heal.ts';
import { type Wrong, wrongPlaces } from './file/issues.ts';
import { moreWrong } from './file/more.ts';
import { knownKeys } from './file/schema-keys.ts';
import { secretPlaces, WAY_OUT } from './file/secrets.ts';
import type { SyncFile } from './perform-types.ts';

export type { Problem } from './file/document.ts';

/** A file of thousands of servers has some hundred KiB. */
const MOST_BYTES = MIB;
/** More lines than this help nobody. */
const MOST_PROBLEMS = 100;

/** CONFIG, with everything that is wrong in the file. */
export class SyncFileError extends PortError {
  /** In the order of the file; never empty. */
  readonly problems: readonly Problem[];
  /** The same as `sync.yaml:12:5: targets.b.lanes: must be at most 16`. */
  readonly lines: readonly string[];

  constructor(file: string, problems: readonly Problem[]) {
    const lines = problems.map((problem) => problemLine(file, problem));
    const more = problems.length - 1;
    super('CONFIG', `${lines[0]}${more > 0 ? ` (and ${more} more)` : ''}`, {
      hint: (more > 0 ? undefined : problems[0]?.hint) ?? `port-image sync check ${printable(file)}`,
    });
    this.problems = problems;
    this.lines = lines;
  }
}

function problemLine(file: string, { line, column, path: at, text }: Problem): string {
  return printable(`${file}:${line}:${column}: ${at === '' ? '' : `${at}: `}${text}`);
}

/** Reads and checks a file; touches nothing else. Throws CONFIG (SyncFileError when it could be read). */
export async function loadSync(file: string): Promise<SyncFile> {
  return parseSync(await readText(file), file);
}

/** Checks the text of a sync file; `file` is for messages and for relative paths. Throws SyncFileError. */
export function parseSync(text: string, file: string): SyncFile {
  if (Buffer.byteLength(text) > MOST_BYTES) {
    throw new SyncFileError(file, [
      { line: 1, column: 1, path: '', text: `larger than ${MOST_BYTES / MIB} MiB` },
    ]);
  }
  const yaml = readYaml(text);
  const { value } = yaml;
  if (value === undefined || value === null || typeof value !== 'object' || Array.isArray(value)) {
    const nothing = {
      line: 1,
      column: 1,
      path: '',
      text: 'not a sync file: `sync`, `sources` and `targets` are missing',
    };
    throw new SyncFileError(file, inOrder(yaml.problems.length > 0 ? yaml.problems : [nothing]));
  }
  const parsed = SyncConfig.safeParse(value);
  const problems = [...yaml.problems, ...found(value, parsed, yaml)];
  if (parsed.success && problems.length === 0) return { path: path.resolve(file), text, config: parsed.data };
  throw new SyncFileError(file, inOrder(problems));
}

function found(value: unknown, parsed: ReturnType<typeof SyncConfig.safeParse>, yaml: YamlText): Problem[] {
  const secrets = secretPlaces(value);
  const known = (at: readonly PropertyKey[]) => knownKeys(at);
  const wrong: Wrong[] = parsed.success ? [] : wrongPlaces(parsed.error.issues, value, known);
  if (wrong.length > 0) {
    const again = SyncConfig.safeParse(
      withoutWrong(
        value,
        wrong.map((one) => one.path),
      ),
    );
    const compared = again.success ? [] : again.error.issues.filter(({ code }) => code === 'custom');
    wrong.push(...wrongPlaces(compared, value, known));
  }
  wrong.push(...moreWrong(value));
  const isSecret = (at: readonly PropertyKey[]) =>
    secrets.some((secret) => secret.length <= at.length && secret.every((step, index) => step === at[index]));
  // what is said of a secret might quote it
  const problems: Problem[] = wrong
    .filter(({ path: at }) => !isSecret(at))
    .map(({ path: at, text }) => ({ ...yaml.at(at), path: pathText(at), text }));
  for (const at of secrets)
    problems.push({
      ...yaml.at(at),
      path: pathText(at),
      text: `looks like a secret, which this file must not hold; ${WAY_OUT}`,
      hint: WAY_OUT,
    });
  return problems;
}

function pathText(at: readonly PropertyKey[]): string {
  const words = at.map((step) => (typeof step === 'number' ? `[${step}]` : `.${String(step).slice(0, 80)}`));
  return words.join('').replace(/^\./, '');
}

function inOrder(problems: readonly Problem[]): Problem[] {
  const each = new Map(problems.map((one) => [`${one.line}:${one.column}:${one.path}:${one.text}`, one]));
  const sorted = [...each.values()].sort((a, b) => a.line - b.line || a.column - b.column);
  if (sorted.length <= MOST_PROBLEMS) return sorted;
  const { line = 1, column = 1 } = sorted[MOST_PROBLEMS] ?? {};
  const text = 'and more from here on';
  return [...sorted.slice(0, MOST_PROBLEMS), { line, column, path: '', text }];
}

async function readText(file: string): Promise<string> {
  const shown = printable(file);
  const refused = (why: string, cause?: unknown) =>
    new PortError('CONFIG', `${shown}: ${why}`, { hint: 'port-image sync FILE; see docs/sync.md', cause });
  let bytes: Buffer;
  try {
    // not to wait for a writer of a pipe
    const handle = await fs.open(file, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
    try {
      const stat = await handle.stat();
      if (!stat.isFile()) throw refused(stat.isDirectory() ? 'is a folder' : 'is not a plain file');
      if (stat.size > MOST_BYTES) throw refused(`is larger than ${MOST_BYTES / MIB} MiB`);
      bytes = await handle.readFile();
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (error instanceof PortError) throw error;
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') throw refused('there is no such file', error);
    if (code === 'EACCES' || code === 'EPERM') throw refused('may not be read', error);
    throw asPortError(error);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    throw refused('is not text in UTF-8', error);
  }
}
