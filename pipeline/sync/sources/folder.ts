/** A folder of images as a source. Everything in it may be hostile: what is refused is told by name, and the others go on. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import PQueue from 'p-queue';
import { asPortError, PortError } from '../../../core/errors.ts';
import { sha256File } from '../../../core/files.ts';
import type { SourceFormat } from '../../../core/request.ts';
import type { SourceConfig } from '../../../core/sync/config.ts';
import { dateWord, isoDate } from '../../../core/sync/dates.ts';
import type {
  FetchedSyncImage,
  ListContext,
  SyncContext,
  SyncImage,
  SyncSource,
} from '../../../core/sync/types.ts';
import { compareVersions } from '../../../core/sync/versions.ts';
import { parsedJson, printable } from '../../../core/text.ts';
import { inspectImageFile } from '../../../tools/image-format/index.ts';
import { parseContract } from '../../contract/image.ts';
import { matches } from '../rules.ts';
import {
  type About,
  asSyncWord,
  contractImage,
  type Defaults,
  describedImage,
  gibOf,
  parseDescription,
  plainImage,
} from './about.ts';
import { type DigestCache, type FileState, fileDigest, fileState, requireUnchanged } from './file-digest.ts';

export type { DigestCache } from './file-digest.ts';

/** A source of this kind in the configuration. */
export type FolderConfig = Extract<SourceConfig, { folder: unknown }>;

/** What opening a source of this machine needs. */
export interface LocalSourceOptions {
  /** Folder relative paths start from. */
  base: string;
  digests: DigestCache;
}

/** Headers are read beside each other; contents one after the other, they usually share one drive. */
const LANES = 4;
/** No description or contract is larger. */
const MOST_TEXT_BYTES = 4 * 1024 * 1024;

/** What a name says about the format is confirmed or refused by the content, never overruled. */
const FORMATS: Readonly<Record<string, SourceFormat>> = {
  '.raw': 'raw',
  '.qcow2': 'qcow2',
  '.vmdk': 'vmdk',
  '.vhd': 'vpc',
  '.vpc': 'vpc',
  '.vhdx': 'vhdx',
  '.vdi': 'vdi',
};

/** Opens it; touches nothing yet. */
export function openFolderSource(
  name: string,
  config: FolderConfig,
  options: LocalSourceOptions,
): SyncSource {
  return new FolderSource(name, config, options);
}

class FolderSource implements SyncSource {
  readonly name: string;
  readonly #config: FolderConfig['folder'];
  readonly #dir: string;
  readonly #digests: DigestCache;

  constructor(name: string, { folder }: FolderConfig, { base, digests }: LocalSourceOptions) {
    this.name = name;
    this.#config = folder;
    this.#dir = path.resolve(base, folder.path);
    this.#digests = digests;
  }

  /** Throws HOST_IO when the folder cannot be read. */
  async list(ctx: ListContext): Promise<SyncImage[]> {
    let names: string[];
    try {
      names = (await fs.readdir(this.#dir)).sort();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw asPortError(error);
      throw new PortError('HOST_IO', `${printable(this.#dir)} is not there`, {
        cause: error,
        hint: 'check the path of the source, and whether its file system is mounted',
      });
    }
    const queue = new PQueue({ concurrency: LANES });
    const reading = new PQueue({ concurrency: 1 });
    const wanted = names.filter(
      (file) =>
        // Names that begin with a dot are files under way; descriptions are no images.
        !file.startsWith('.') &&
        !file.endsWith('.json') &&
        this.#config.names.some((pattern) => matches(pattern, file)),
    );
    const found = await Promise.all(
      wanted.map((file) =>
        queue.add(async () => {
          try {
            return await this.#image(file, reading, ctx);
          } catch (error) {
            if (ctx.signal.aborted) throw new PortError('INTERRUPTED', 'interrupted', { cause: error });
            const told = asPortError(error);
            if (told.code === 'BUG') throw error;
            ctx.leaveOut(file, told);
            return undefined;
          }
        }),
      ),
    );
    return eachOnce(
      found.filter((image) => image !== undefined),
      ctx,
    );
  }

  async #image(file: string, reading: PQueue, ctx: SyncContext): Promise<SyncImage> {
    const { signal } = ctx;
    signal.throwIfAborted();
    const state = await fileState(path.join(this.#dir, file));
    const header = await this.#header(state);
    const about = await this.#about(file, state, header.virtualBytes);
    const digest = await reading.add(() => {
      const text = `checking ${printable(file)}`;
      ctx.progress({ text });
      return fileDigest(state, this.#digests, signal, (doneBytes) =>
        ctx.progress({ text, doneBytes, totalBytes: state.bytes }),
      );
    });
    return {
      ...about,
      ref: state.path,
      name: about.series,
      fileDigest: digest,
      format: header.format,
      fileBytes: state.bytes,
      virtualBytes: header.virtualBytes,
      createdAt: isoDate(new Date(state.modifiedMs)),
      minDiskGib: Math.max(about.minDiskGib, gibOf(header.virtualBytes)),
    };
  }

  /** Format and size; remembered as long as the file stays the very same. Throws as inspectImageFile. */
  async #header(state: FileState): Promise<{ format: SourceFormat; virtualBytes: number }> {
    const key = `header ${state.key}`;
    const [, format, bytes] = /^([a-z0-9]+) (\d+)$/.exec(this.#digests.get(key) ?? '') ?? [];
    const known = Object.values(FORMATS).find((one) => one === format);
    if (known !== undefined) return { format: known, virtualBytes: Number(bytes) };
    const named = FORMATS[path.extname(state.path).toLowerCase()];
    const header = await inspectImageFile(state.path, named);
    if (state.settled) this.#digests.set(key, `${header.format} ${header.virtualBytes}`);
    return header;
  }

  /** A description counts most, then a contract, then the file's own name and time. Throws CONFIG, NO_CONTRACT. */
  async #about(file: string, state: FileState, virtualBytes: number): Promise<About> {
    const stem = file.replace(/\.[^.]*$/, '');
    const defaults: Defaults = { firmware: this.#config.firmware, arch: this.#config.arch };
    const beside = await this.#textOf(`${file}.json`);
    const artifact = artifactOf(beside);
    for (const [name, text] of [
      [`${file}.json`, artifact === undefined ? beside : undefined],
      [`${stem}.json`, await this.#textOf(`${stem}.json`)],
    ] as const) {
      if (text !== undefined) return describedImage(parseDescription(text, name), defaults);
    }
    const contract = await this.#contractOf(stem, artifact, virtualBytes);
    if (contract !== undefined) return contract;
    const series = asSyncWord(stem);
    if (series === undefined) {
      throw new PortError('CONFIG', 'nothing of its name can name an image', {
        hint: 'rename it, or put a description beside it: docs/sync-sources.md',
      });
    }
    return plainImage(series, dateWord(new Date(state.modifiedMs)), defaults);
  }

  /** `NAME.contract.json`, or the `contract.json` of a folder a conversion wrote, when it is of this image. */
  async #contractOf(
    stem: string,
    artifact: { disk: string | undefined } | undefined,
    virtualBytes: number,
  ): Promise<About | undefined> {
    for (const name of [`${stem}.contract.json`, 'contract.json']) {
      const text = await this.#textOf(name);
      if (text === undefined) continue;
      const contract = parseContract(text, name);
      const { name: image } = contract.image;
      // One contract stands beside all images of a conversion; others may lie in the folder too.
      const isOfIt = stem === image || (artifact !== undefined && stem.startsWith(`${image}-`));
      if (name === 'contract.json' && !isOfIt) continue;
      return contractImage(contract, {
        agentAdded: false,
        contractSha256: await sha256File(path.join(this.#dir, name)),
        virtualBytes,
        disk: artifact?.disk,
      });
    }
    return undefined;
  }

  /** A small file of the folder; undefined when there is none. Throws CONFIG when it is none that may be read. */
  async #textOf(name: string): Promise<string | undefined> {
    const file = path.join(this.#dir, name);
    const stat = await fs.lstat(file).catch(() => undefined);
    if (stat === undefined) return undefined;
    if (!stat.isFile() || stat.size > MOST_TEXT_BYTES)
      throw new PortError(
        'CONFIG',
        `${printable(name)} is no regular file, or larger than a description can be`,
      );
    return fs.readFile(file, 'utf8');
  }

  /** The file itself. Throws SOURCE_CHANGED. */
  async fetch(image: SyncImage, _dir: string, { signal }: SyncContext): Promise<FetchedSyncImage> {
    if (path.dirname(image.ref) !== this.#dir)
      throw new PortError('UNSAFE_PATH', `${printable(image.ref)} is not in ${printable(this.#dir)}`);
    await requireUnchanged(image.ref, image.fileDigest, this.#digests, signal);
    return { path: image.ref, format: image.format, receivedBytes: 0 };
  }

  async close(): Promise<void> {}
}

/** `FILE.json` as a conversion writes it beside each image: no description. */
function artifactOf(text: string | undefined): { disk: string | undefined } | undefined {
  const value = text === undefined ? undefined : parsedJson(text);
  if (typeof value !== 'object' || value === null) return undefined;
  const { schema, disk } = value as Record<string, unknown>;
  if (schema !== 'port-image/artifact/1') return undefined;
  return { disk: typeof disk === 'string' ? disk : undefined };
}

/** Forms of one image in the order they are taken. */
const PREFERENCE = ['qcow2', 'raw'];

/** Newest first in each series. An image in several formats is one: the same version would come twice. */
export function eachOnce(images: readonly SyncImage[], ctx: Pick<SyncContext, 'warn'>): SyncImage[] {
  const rank = ({ format }: SyncImage) => {
    const at = PREFERENCE.indexOf(format);
    return at < 0 ? PREFERENCE.length : at;
  };
  const kept = new Map<string, SyncImage>();
  for (const image of [...images].sort((a, b) => rank(a) - rank(b) || (a.ref < b.ref ? -1 : 1))) {
    const key = `${image.series}@${image.version}`;
    const other = kept.get(key);
    if (other === undefined) kept.set(key, image);
    else
      ctx.warn(`${printable(image.ref)} is left out: ${printable(other.ref)} is ${printable(key)} already`);
  }
  return [...kept.values()].sort(
    (a, b) =>
      (a.series < b.series ? -1 : a.series > b.series ? 1 : 0) || compareVersions(b.version, a.version),
  );
}
