/**
 * What is ours in vSphere says so in its annotation, which is there from the first moment of an import. A clone inherits the
 * annotation of its template: it alone never makes a machine ours to remove, name and folder must be ours too.
 */
import { printable } from '../../core/text.ts';

/** What an annotation of ours says. */
export interface Note {
  /** Mark of the job. */
  mark: string;
  /** `complete` once every byte is there and the devices were checked. */
  state: 'importing' | 'complete';
  /** sha256 of the OVA, hex. */
  file: string;
  /** `ok` when the host's digests were compared. */
  content: 'ok' | 'unverifiable';
  /** Of the contract. */
  id?: string | undefined;
  version?: string | undefined;
  source?: string | undefined;
}

const KEYS = ['mark', 'state', 'file', 'content', 'id', 'version', 'source'] as const;

/** The annotation; people read it too. */
export function noteText(name: string, note: Note): string {
  const lines = KEYS.flatMap((key) => {
    const value = note[key];
    return value === undefined ? [] : [`port-image.${key}: ${printable(value).slice(0, 200)}`];
  });
  return [`Image ${name}, made by port-image`, ...lines].join('\n');
}

/** Reads an annotation; undefined when it is not one of ours. */
export function readNote(annotation: unknown): Note | undefined {
  if (typeof annotation !== 'string') return undefined;
  const fields = new Map<string, string>();
  for (const [, key = '', value = ''] of annotation.matchAll(/^port-image\.([a-z]+): (.*)$/gm)) {
    if (!fields.has(key)) fields.set(key, value.trimEnd());
  }
  const mark = fields.get('mark');
  if (mark === undefined) return undefined;
  return {
    mark,
    state: fields.get('state') === 'complete' ? 'complete' : 'importing',
    file: fields.get('file') ?? '',
    content: fields.get('content') === 'ok' ? 'ok' : 'unverifiable',
    id: fields.get('id'),
    version: fields.get('version'),
    source: fields.get('source'),
  };
}

/**
 * Name a machine has while it is made: nobody else's, and told from clones. Its folder on the datastore keeps the name for
 * ever, so another file of the same job has another one.
 */
export function temporaryName(mark: string, file: string): string {
  return `port-image-${mark}-${file.slice(0, 8)}`;
}

/** True for any temporary name of that job. */
export function isTemporaryName(name: string, mark: string): boolean {
  return name.startsWith(`port-image-${mark}-`);
}
