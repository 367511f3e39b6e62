/** `file:DIR`: a folder laid out like an object store. Also what the tests and the verification boot serve from. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import type { Readable } from 'node:stream';
import { DATA_SET_ID } from '../../core/data-set.ts';
import { asPortError, PortError } from '../../core/errors.ts';
import {
  exists,
  FILE_MODE,
  fsyncPath,
  makeDir,
  renameDurable,
  requireFreeSpace,
  temporaryName,
} from '../../core/files.ts';
import { checkKey } from './key.ts';
import type { Content, GetOptions, PutOptions, Store, StoredObject } from './store.ts';

async function writeAll(handle: fs.FileHandle, body: AsyncIterable<Uint8Array>, signal?: AbortSignal) {
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const chunk of body) {
    signal?.throwIfAborted();
    hash.update(chunk);
    let at = 0;
    while (at < chunk.byteLength) at += (await handle.write(chunk, at)).bytesWritten;
    bytes += chunk.byteLength;
  }
  await handle.sync();
  return { bytes, sha256: hash.digest('hex') };
}

/** Creates a folder and its missing parents so that their names survive a power loss. */
async function makeDirDurable(dir: string): Promise<void> {
  if (await exists(dir)) return;
  const parent = path.dirname(dir);
  await makeDirDurable(parent);
  await makeDir(dir);
  await fsyncPath(parent);
}

/** A store in a folder of this machine. Files 0600, folders 0700, names appear by rename only. */
export class FileStore implements Store {
  readonly url: string;
  /** Absolute path. */
  readonly dir: string;

  constructor(dir: string) {
    this.dir = path.resolve(dir);
    this.url = `file:${this.dir}`;
  }

  /** Host path of an object, for programs that serve the folder. Throws UNSAFE_PATH for an unclean key. */
  pathOf(key: string): string {
    return path.join(this.dir, ...checkKey(key));
  }

  async check(neededBytes: number): Promise<void> {
    try {
      // The nearest existing folder tells: a plan must not leave new folders behind.
      let dir = this.dir;
      while (!(await exists(dir))) dir = path.dirname(dir);
      if (!(await fs.stat(dir)).isDirectory()) throw new PortError('STORE', `${dir} is not a folder`);
      await fs.access(dir, fs.constants.W_OK | fs.constants.X_OK);
      await requireFreeSpace(dir, neededBytes, 'the data store');
    } catch (error) {
      throw asPortError(error);
    }
  }

  async put(key: string, content: Content, options: PutOptions = {}): Promise<StoredObject> {
    const target = this.pathOf(key);
    const temporary = temporaryName(target);
    try {
      await makeDirDurable(path.dirname(target));
      const handle = await fs.open(temporary, 'wx', FILE_MODE);
      let written: { bytes: number; sha256: string };
      try {
        written = await writeAll(handle, content(), options.signal);
      } finally {
        await handle.close();
      }
      if (options.bytes !== undefined && written.bytes !== options.bytes) {
        throw new PortError('STORE', `${key}: ${written.bytes} bytes came, ${options.bytes} were announced`);
      }
      await renameDurable(temporary, target);
      return { key, ...written };
    } catch (error) {
      await fs.rm(temporary, { force: true });
      throw asPortError(error);
    }
  }

  async get(key: string, options: GetOptions = {}): Promise<Readable> {
    const start = options.offsetBytes ?? 0;
    let handle: fs.FileHandle;
    try {
      handle = await fs.open(this.pathOf(key), fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw asPortError(error);
      throw new PortError('STORE', `${key} is not in the store ${this.url}`, { cause: error });
    }
    return createReadStream('', {
      fd: handle,
      start,
      ...(options.lengthBytes === undefined ? {} : { end: start + options.lengthBytes - 1 }),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
      highWaterMark: 1 << 18,
    });
  }

  async head(key: string): Promise<StoredObject | undefined> {
    try {
      const stat = await fs.lstat(this.pathOf(key));
      return stat.isFile() ? { key, bytes: stat.size, modifiedMs: Math.round(stat.mtimeMs) } : undefined;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
      throw asPortError(error);
    }
  }

  async *list(prefix: string): AsyncIterable<StoredObject> {
    const slash = prefix.lastIndexOf('/');
    const folder = slash < 0 ? '' : prefix.slice(0, slash);
    if (folder !== '') checkKey(folder);
    yield* this.#listFolder(folder, prefix);
  }

  async *#listFolder(folder: string, prefix: string): AsyncIterable<StoredObject> {
    let names: string[];
    try {
      names = await fs.readdir(path.join(this.dir, folder));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
      throw asPortError(error);
    }
    // Object stores order by whole keys, where `/` counts as a character.
    const stats = await Promise.all(
      names.map((n) => fs.lstat(path.join(this.dir, folder, n)).catch(() => undefined)),
    );
    const sorted = names
      .map((name, i) => ({ name, stat: stats[i], order: stats[i]?.isDirectory() ? `${name}/` : name }))
      .sort((a, b) => (a.order < b.order ? -1 : 1));
    for (const { name, stat } of sorted) {
      const key = folder === '' ? name : `${folder}/${name}`;
      // Names with a leading dot are uploads under way or left by a killed run.
      if (name.startsWith('.') || stat === undefined) continue;
      if (stat.isDirectory()) {
        if (`${key}/`.startsWith(prefix) || prefix.startsWith(`${key}/`))
          yield* this.#listFolder(key, prefix);
      } else if (stat.isFile() && key.startsWith(prefix)) {
        yield { key, bytes: stat.size, modifiedMs: Math.round(stat.mtimeMs) };
      }
    }
  }

  async remove(key: string): Promise<void> {
    const target = this.pathOf(key);
    await fs.rm(target, { force: true });
    // Empty folders are no objects; rmdir refuses by itself when something is left.
    let dir = path.dirname(target);
    while (dir.startsWith(`${this.dir}${path.sep}`)) {
      const gone = await fs.rmdir(dir).then(
        () => true,
        () => false,
      );
      if (!gone) return;
      dir = path.dirname(dir);
    }
  }

  async *ids(): AsyncIterable<string> {
    const entries = await fs.readdir(this.dir, { withFileTypes: true }).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw asPortError(error);
    });
    const names = entries.filter((e) => e.isDirectory() && DATA_SET_ID.test(e.name)).map((e) => e.name);
    yield* names.sort();
  }

  async sweep(prefix: string): Promise<number> {
    const dir = path.join(this.dir, ...checkKey(prefix));
    let removed = 0;
    for (const name of await fs.readdir(dir, { recursive: true }).catch(() => [] as string[])) {
      if (!/^\..+\.[0-9a-f]{12}\.tmp$/.test(path.basename(name))) continue;
      const target = path.join(dir, name);
      await fs.rm(target, { force: true });
      removed += 1;
    }
    return removed;
  }
}
