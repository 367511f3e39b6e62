/** What killed uploads left and no listing of a store shows: parts of large objects, temporary files. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { FileStore } from '../../drivers/stores/file.ts';
import { checkKey } from '../../drivers/stores/key.ts';
import type { Store, StoredObject } from '../../drivers/stores/store.ts';
import { SwiftStore } from '../../drivers/stores/swift.ts';
import { isPartName, namesOf } from '../../tools/openstack/swift-slo.ts';

/** A hidden object that nothing refers to. */
export interface Leftover extends StoredObject {
  /** The upload it belongs to; the youngest of them tells whether that upload still runs. */
  upload: string;
}

/** Form of FileStore's temporary names (core/files.ts, `temporaryName`). */
const TEMPORARY = /^\..+\.[0-9a-f]{12}\.tmp$/;

async function inFolder(store: FileStore, id: string): Promise<Leftover[]> {
  const dir = path.join(store.dir, ...checkKey(id));
  const found: Leftover[] = [];
  for (const name of await fs.readdir(dir, { recursive: true }).catch(() => [] as string[])) {
    if (!TEMPORARY.test(path.basename(name))) continue;
    const stat = await fs.lstat(path.join(dir, name)).catch(() => undefined);
    if (stat?.isFile() !== true) continue;
    const key = `${id}/${name}`;
    found.push({ key, bytes: stat.size, modifiedMs: Math.round(stat.mtimeMs), upload: key });
  }
  return found;
}

async function inContainer(store: SwiftStore, id: string, signal?: AbortSignal): Promise<Leftover[]> {
  const api = await store.api();
  const container = store.containerOf(id);
  const uploads = new Map<string, Leftover[]>();
  for await (const { name, bytes, modifiedMs } of api.listObjects(container, '', signal)) {
    if (!isPartName(name)) continue;
    const upload = name.slice(0, name.indexOf('.parts/'));
    const part = { key: `${id}/${name}`, bytes, upload, ...(modifiedMs === undefined ? {} : { modifiedMs }) };
    uploads.set(upload, [...(uploads.get(upload) ?? []), part]);
  }
  const loose: Leftover[] = [];
  for (const [upload, parts] of uploads) {
    const used = await namesOf(api, container, upload, signal);
    loose.push(...parts.filter((p) => !used.has(p.key.slice(id.length + 1))));
  }
  return loose;
}

/** Leftovers of one data set; `id` is one that the store names as its own. */
export async function leftoversOf(store: Store, id: string, signal?: AbortSignal): Promise<Leftover[]> {
  if (store instanceof FileStore) return inFolder(store, id);
  if (store instanceof SwiftStore) return inContainer(store, id, signal);
  return [];
}

/** Removes one of `leftoversOf`. */
export async function removeLeftover(store: Store, id: string, key: string): Promise<void> {
  const name = key.slice(id.length + 1);
  if (store instanceof FileStore) {
    await fs.rm(path.join(store.dir, ...checkKey(id), name), { force: true });
    // and the folder it lay in, when nothing else does
    await store.remove(`${path.posix.dirname(key)}/none`);
  } else if (store instanceof SwiftStore) {
    await (await store.api()).removePlain(store.containerOf(id), name);
  }
}

/** Removes the container or folder of a data set that holds nothing any more; does nothing while it does. */
export async function dropEmpty(store: Store, id: string): Promise<void> {
  // removing the last object takes the container along, and there is no object of this name
  await store.remove(`${id}/none`);
}
