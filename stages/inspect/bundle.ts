/** The guest's configuration as one tar, read into memory; links resolve inside the guest only. */
import { createReadStream } from 'node:fs';
import * as path from 'node:path/posix';
import { extract } from 'tar-stream';
import type { FileKind } from '../../core/guest.ts';

const MAX_HOPS = 16;

/** Files of the guest as they were when COLLECT ran. Paths are absolute guest paths. */
export class Bundle {
  readonly #files = new Map<string, Buffer>();
  readonly #links = new Map<string, string>();
  readonly #lists = new Map<string, Buffer>();

  /** Adds a file (`@lists/…` are the listings of COLLECT). */
  addFile(name: string, content: Buffer): void {
    if (name.startsWith('@lists/')) this.#lists.set(name.slice('@lists/'.length), content);
    else this.#files.set(path.resolve('/', name), content);
  }

  /** Adds a symbolic link. */
  addLink(name: string, target: string): void {
    this.#links.set(path.resolve('/', name), target);
  }

  /** Where a path leads after following links, as far as they are known. */
  resolve(name: string): string {
    let at = path.resolve('/', name);
    for (let hop = 0; hop < MAX_HOPS; hop++) {
      const parts = at.split('/').slice(1);
      let changed = false;
      for (let n = 1; n <= parts.length; n++) {
        const head = `/${parts.slice(0, n).join('/')}`;
        const target = this.#links.get(head);
        if (target === undefined) continue;
        at = path.resolve(path.dirname(head), target, ...parts.slice(n));
        changed = true;
        break;
      }
      if (!changed) return at;
    }
    return at;
  }

  /** Target of a link as written. */
  link(name: string): string | undefined {
    return this.#links.get(path.resolve('/', name));
  }

  /** What is at a path. */
  kind(name: string): FileKind {
    const at = path.resolve('/', name);
    if (this.#links.has(at)) return 'symlink';
    return this.#files.has(at) ? 'file' : 'missing';
  }

  /** Text of a file, links followed; undefined when it is not there. */
  text(name: string): string | undefined {
    return this.#files.get(this.resolve(name))?.toString('utf8');
  }

  /** Bytes of a file, links followed. */
  bytes(name: string): Buffer | undefined {
    return this.#files.get(this.resolve(name));
  }

  /** Files and links below a folder, whole paths, sorted. */
  below(dir: string): string[] {
    const prefix = `${this.resolve(dir)}/`;
    return [...this.#files.keys(), ...this.#links.keys()].filter((p) => p.startsWith(prefix)).sort();
  }

  /** Files directly in a folder whose names end with `suffix`, with text, sorted. */
  texts(dir: string, suffix = ''): { path: string; text: string }[] {
    const base = this.resolve(dir);
    return this.below(dir)
      .filter((p) => path.dirname(p) === base && p.endsWith(suffix))
      .flatMap((p) => {
        const text = this.text(p);
        return text === undefined ? [] : [{ path: p, text }];
      });
  }

  /** Bytes of a listing. */
  list(name: string): Buffer {
    return this.#lists.get(name) ?? Buffer.alloc(0);
  }

  /** Records of a listing that ends each with NUL, as text. */
  records(name: string): string[] {
    return this.list(name)
      .toString('utf8')
      .split('\0')
      .filter((r) => r !== '');
  }
}

/** Reads the tar COLLECT made. */
export async function readBundle(hostFile: string): Promise<Bundle> {
  const bundle = new Bundle();
  const unpack = extract();
  createReadStream(hostFile, { highWaterMark: 1 << 18 }).pipe(unpack);
  for await (const entry of unpack) {
    const { type, name, linkname } = entry.header;
    if (type === 'symlink') bundle.addLink(name, linkname ?? '');
    if (type === 'file' || type === 'contiguous-file') {
      const chunks: Buffer[] = [];
      for await (const chunk of entry) chunks.push(chunk as Buffer);
      bundle.addFile(name, Buffer.concat(chunks));
    } else {
      entry.resume();
    }
  }
  return bundle;
}
