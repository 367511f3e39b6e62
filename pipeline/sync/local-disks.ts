/** Images of a run on this machine: each is fetched, checked and indexed once, however many targets want it, then removed. */

import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { DAY_MS } from '../../core/durations.ts';
import { PortError } from '../../core/errors.ts';
import { makeDir, writeFileAtomic } from '../../core/files.ts';
import { SOURCE_FORMATS } from '../../core/request.ts';
import { BlockIndex } from '../../core/sync/block-index.ts';
import type { LocalDisk, SyncContext, SyncImage, SyncSource } from '../../core/sync/types.ts';
import { printable } from '../../core/text.ts';
import { gate } from '../../stages/capture/gate.ts';
import { indexDisk } from '../../tools/blocks/index-disk.ts';
import { map } from '../../tools/qemu-img.ts';
import { detachStale, exportDisk } from '../../tools/qemu-storage-daemon.ts';

/** An image that can be read. */
export interface OpenedImage extends LocalDisk {
  /** The image as a file, with its format: what a boot starts from. */
  file: { path: string; format: string };
  /** Bytes that travelled for it; 0 for all but the first who uses it. */
  receivedBytes: number;
}

type Opened = { image: OpenedImage; close(keep: boolean): Promise<void> };

interface Entry {
  /** Undefined while nobody needed it yet, and after it was closed or could not be opened. */
  opened: Promise<Opened> | undefined;
  /** Set while it is being closed: its folder goes then, and comes anew. */
  closing: Promise<void> | undefined;
  users: number;
  /** Signals of those that use it; when all have fired, what is open for them is given up. */
  signals: Set<AbortSignal>;
  stop: AbortController;
  /** A use of it failed: the next run will want it again. */
  isWanted: boolean;
  /** Somebody was told what travelled for it. */
  isCounted: boolean;
}

/** What a reader of images needs. */
export interface LocalDisksOptions {
  /** Folder of this machine; what a killed run had fetched is gone on with. */
  dir: string;
  bytesPerSecond?: number | undefined;
  /** Told when the content of a file is known. */
  remember(fileDigest: string, facts: { rawSha256: string; virtualBytes: number }): void;
}

/** Longer than from one night to the next but one: an image that is not asked for by then is not asked for again. */
const COPY_LIFE_MS = 3 * DAY_MS;

/** Opens images and closes them when nobody uses them any more. */
export class LocalDisks {
  #options: LocalDisksOptions;
  readonly #entries = new Map<string, Entry>();

  constructor(options: LocalDisksOptions) {
    this.#options = options;
  }

  /**
   * Removes mounts and scratch files a killed run left, and copies nobody came back for; copies under way stay. Call it once, under the
   * lock of the folder.
   */
  async start(): Promise<void> {
    await makeDir(this.#options.dir);
    for (const name of await fs.readdir(this.#options.dir)) {
      const folder = path.join(this.#options.dir, name);
      await detachStale(path.join(folder, 'tmp')).catch(() => {});
      await fs.rm(path.join(folder, 'tmp'), { recursive: true, force: true });
    }
    await this.removeOld();
  }

  /** Removes copies nobody came back for; those in use stay. */
  async removeOld(): Promise<void> {
    for (const name of await fs.readdir(this.#options.dir)) {
      if (this.#entries.has(name)) continue;
      const folder = path.join(this.#options.dir, name);
      const stat = await fs.stat(folder).catch(() => undefined);
      // Somebody may have come for it while it was looked at.
      if (stat === undefined || Date.now() - stat.mtimeMs < COPY_LIFE_MS || this.#entries.has(name)) continue;
      await fs.rm(folder, { recursive: true, force: true });
    }
  }

  /** Bytes a second that may be fetched from now on. */
  limit(bytesPerSecond: number | undefined): void {
    this.#options = { ...this.#options, bytesPerSecond };
  }

  /** Removes copies of all images but these: a run that was killed behind its last target leaves one that nobody needs. */
  async keepOnly(images: readonly { source: string; image: SyncImage }[]): Promise<void> {
    const kept = new Set(images.map(({ source, image }) => folderName(source, image)));
    for (const name of await fs.readdir(this.#options.dir))
      if (!kept.has(name)) await fs.rm(path.join(this.#options.dir, name), { recursive: true, force: true });
  }

  #entry(key: string): Entry {
    const known = this.#entries.get(key);
    if (known !== undefined) return known;
    const entry: Entry = {
      opened: undefined,
      closing: undefined,
      users: 0,
      signals: new Set(),
      stop: new AbortController(),
      isWanted: false,
      isCounted: false,
    };
    this.#entries.set(key, entry);
    return entry;
  }

  /**
   * Keeps an image, once it is open, until the returned function is called: for several uses one after the other, between which nobody
   * uses it. Opens nothing.
   */
  hold(source: string, image: SyncImage): () => Promise<void> {
    const key = folderName(source, image);
    const entry = this.#entry(key);
    entry.users++;
    return () => this.#release(key, entry);
  }

  /**
   * Runs `work` with the image open. Throws SOURCE_REMOTE, SOURCE_CHANGED (content is not what the source said), DAMAGED,
   * UNSAFE_IMAGE and whatever else the gate refuses, DISK_SPACE, HOST_IO, INTERRUPTED.
   */
  async use<T>(
    source: SyncSource,
    image: SyncImage,
    ctx: SyncContext,
    work: (opened: OpenedImage) => Promise<T>,
  ): Promise<T> {
    const { signal } = ctx;
    if (signal.aborted) throw new PortError('INTERRUPTED', 'interrupted');
    const key = folderName(source.name, image);
    const entry = this.#entry(key);
    entry.users++;
    const check = () => {
      if ([...entry.signals].every((one) => one.aborted)) entry.stop.abort();
    };
    entry.signals.add(signal);
    signal.addEventListener('abort', check, { once: true });
    try {
      await entry.closing;
      if (entry.stop.signal.aborted)
        throw new PortError('HOST_IO', `${printable(image.name)} is being closed here`, { temporary: true });
      // One who is stopped must not stop the others.
      const shared = { ...ctx, signal: entry.stop.signal };
      entry.opened ??= this.#open(key, source, image, shared).catch((error: unknown) => {
        // Whoever tries again opens it again.
        entry.opened = undefined;
        throw error;
      });
      const { image: opened } = await unlessAborted(entry.opened, signal);
      // Travelled once, counted once.
      const receivedBytes = entry.isCounted ? 0 : opened.receivedBytes;
      entry.isCounted = true;
      return await work({ ...opened, receivedBytes });
    } catch (error) {
      entry.isWanted = true;
      throw error;
    } finally {
      signal.removeEventListener('abort', check);
      entry.signals.delete(signal);
      await this.#release(key, entry);
    }
  }

  async #release(key: string, entry: Entry): Promise<void> {
    entry.users--;
    if (entry.users > 0 || entry.closing !== undefined) return;
    entry.closing = (async () => {
      const opened = await entry.opened?.catch(() => undefined);
      await opened?.close(entry.isWanted);
      entry.opened = undefined;
      entry.closing = undefined;
      entry.stop = new AbortController();
    })();
    await entry.closing;
    // Somebody may have come meanwhile and opened it anew.
    if (entry.users === 0 && entry.opened === undefined) this.#entries.delete(key);
  }

  async #open(key: string, source: SyncSource, image: SyncImage, ctx: SyncContext): Promise<Opened> {
    const dir = path.join(this.#options.dir, key);
    const tmp = path.join(dir, 'tmp');
    await makeDir(tmp);
    const { signal, log } = ctx;
    const fetched = await source.fetch(image, dir, { ...ctx, bytesPerSecond: this.#options.bytesPerSecond });
    const format = SOURCE_FORMATS.find((known) => known === fetched.format);
    if (format === undefined)
      throw new PortError(
        'UNSUPPORTED_FORMAT',
        `${printable(image.name)} has the format ${printable(fetched.format)}`,
        {
          hint: 'a disk image of qemu-img: qcow2, raw, vmdk, vpc, vhdx or vdi',
        },
      );
    const checked = await gate(fetched.path, {
      format,
      tmp,
      signal,
      log,
      warn: (text) => ctx.warn(text),
    });
    const file = { path: checked.path, format: checked.format };
    const disk = await exportDisk(file, tmp, { signal, log });
    try {
      const index = await this.#index(dir, fetched.path, disk.path, file, image, checked.virtualBytes, ctx);
      if (image.rawSha256 !== undefined && index.rawSha256 !== image.rawSha256) {
        throw new PortError(
          'SOURCE_CHANGED',
          `${printable(image.name)} ${printable(image.version)} of ${source.name} does not hold the content its description names`,
          { hint: 'somebody changed the image or its port_image_sha256; make it anew' },
        );
      }
      if (image.fileDigest !== undefined)
        this.#options.remember(image.fileDigest, {
          rawSha256: index.rawSha256,
          virtualBytes: index.virtualBytes,
        });
      return {
        image: {
          rawPath: disk.path,
          virtualBytes: checked.virtualBytes,
          index,
          file,
          receivedBytes: fetched.receivedBytes,
        },
        close: async (keep: boolean) => {
          await disk.stop();
          await fs.rm(keep ? tmp : dir, { recursive: true, force: true });
        },
      };
    } catch (error) {
      await disk.stop();
      throw error;
    }
  }

  /** The index a killed run had made is taken up when the file is the very same. */
  async #index(
    dir: string,
    source: string,
    rawPath: string,
    file: { path: string; format: string },
    image: SyncImage,
    virtualBytes: number,
    ctx: SyncContext,
  ): Promise<BlockIndex> {
    const { signal, log } = ctx;
    const tag = await stateOf(source);
    const kept = path.join(dir, `${tag.slice(0, 32)}.blocks`);
    const known = await fs.readFile(kept).catch(() => undefined);
    if (known !== undefined) {
      try {
        return BlockIndex.fromBytes(known);
      } catch {
        await fs.rm(kept, { force: true });
      }
    }
    const index = await indexDisk(rawPath, {
      virtualBytes,
      extents: await map(file, { signal, log }),
      signal,
      onProgress: (doneBytes: number, totalBytes: number) =>
        ctx.progress({ text: `reading ${image.name}`, doneBytes, totalBytes }),
    });
    // Half of it may be the old one, and its digest would stand for the new one for ever.
    if ((await stateOf(source)) !== tag)
      throw new PortError('SOURCE_CHANGED', `${printable(image.name)} changed while it was read`, {
        hint: 'the next run takes it as it is then; write images under another name and rename them',
      });
    await writeFileAtomic(kept, index.toBytes());
    return index;
  }
}

/** A folder per image and content. */
function folderName(source: string, image: SyncImage): string {
  const digest = createHash('sha256')
    .update([source, image.ref, image.series, image.version, image.fileDigest ?? ''].join('\0'))
    .digest('hex');
  return `${source}-${digest.slice(0, 24)}`;
}

/** Tells one state of a file from another without reading it. */
async function stateOf(file: string): Promise<string> {
  const { size, mtimeMs, ino, ctimeMs } = await fs.stat(file);
  return createHash('sha256').update([file, size, mtimeMs, ctimeMs, ino].join('\0')).digest('hex');
}

/** The value, or INTERRUPTED as soon as the signal fires; what makes the value goes on. */
async function unlessAborted<T>(made: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const stop = () => reject(new PortError('INTERRUPTED', 'interrupted'));
  signal.addEventListener('abort', stop, { once: true });
  if (signal.aborted) stop();
  try {
    return await Promise.race([made, promise]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
