/**
 * `/usr/lib/port-image/data.d/ID.conf` as the guest's shell reads it. The client sources these files as root, so
 * anything but plain assignments is refused and never interpreted.
 */
import { dataSetConf } from '../../tools/guest-side.ts';

/** What a configuration says; names as in the file. */
export type DataConf = ReadonlyMap<string, string>;

/** Every name the writer knows: read off what it writes, so that the two never differ. */
const CONF_NAMES: readonly string[] = dataSetConf({
  id: '',
  path: '',
  mode: 'eager',
  neededBy: [],
  keep: [],
  bytes: 0,
  files: 0,
  neededBytes: 0,
  segments: 0,
  manifestSha256: '',
  segmentsSha256: '',
})
  .split('\n')
  .flatMap((line) => /^([A-Z][A-Z0-9_]*)=/.exec(line)?.[1] ?? []);

const ASSIGNMENT = /^([A-Z][A-Z0-9_]*)=((?:[A-Za-z0-9._-]|'[^']*'|\\')*)$/;

/** Reads the assignments; a string says what is wrong with the text. */
export function parseDataConf(text: string): DataConf | string {
  const values = new Map<string, string>();
  for (const [i, line] of text.split('\n').entries()) {
    if (line === '' || line.startsWith('#')) continue;
    const match = ASSIGNMENT.exec(line);
    const name = match?.[1] ?? '';
    if (match === null) return `line ${i + 1} is no plain assignment`;
    if (!CONF_NAMES.includes(name)) return `line ${i + 1} sets ${name}, which is none of ours`;
    if (values.has(name)) return `${name} is set twice`;
    const quoted = match[2] ?? '';
    values.set(
      name,
      quoted.replace(/'([^']*)'|\\'/g, (_, inner: string | undefined) => inner ?? "'"),
    );
  }
  return values;
}

/** The paths of KEEP, relative to the data set: words of plain bytes and `\0ooo`. */
export function keptPaths(conf: DataConf): string[] {
  return (conf.get('KEEP') ?? '')
    .split(' ')
    .filter((word) => word !== '')
    .map((word) => {
      const bytes: number[] = [];
      for (let at = 0; at < word.length; at++) {
        const octal = /^\\0([0-7]{3})/.exec(word.slice(at))?.[1];
        bytes.push(octal === undefined ? word.charCodeAt(at) : Number.parseInt(octal, 8));
        if (octal !== undefined) at += 4;
      }
      return Buffer.from(bytes).toString('utf8');
    });
}

/** True for a path that stays inside its data set. */
export function isInside(path: string): boolean {
  return !path.split('/').some((p) => p === '' || p === '.' || p === '..');
}
