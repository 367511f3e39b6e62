/**
 * Names of parts: below `NAME.parts/`, by number and chance, so that none is ever replaced while a manifest still names
 * it. What is there of an earlier run is found by them, and taken away when it is of no more use.
 */
import { randomBytes } from 'node:crypto';
import { MIB } from '../../core/sizes.ts';
import type { SwiftApi } from './swift.ts';
import type { SwiftObject } from './swift-object.ts';
import { partsFolder, removeAll } from './swift-slo.ts';

/** Size of parts unless the service's limits ask for another. */
const PART_BYTES = 128 * MIB;

/** What is already there under a name: the object, parts by number. */
export interface Leftovers {
  object: SwiftObject | undefined;
  parts: Map<number, SwiftObject[]>;
  names: string[];
}

/** Finds what an earlier run put under a name. Throws CLOUD. */
export async function leftovers(
  api: SwiftApi,
  container: string,
  name: string,
  signal?: AbortSignal,
): Promise<Leftovers> {
  const found: Leftovers = { object: undefined, parts: new Map(), names: [] };
  const folder = partsFolder(name);
  for await (const object of api.listObjects(container, name, signal)) {
    if (object.name === name) found.object = object;
    if (!object.name.startsWith(folder)) continue;
    found.names.push(object.name);
    const number = /^(\d{6})\.[0-9a-f]+$/.exec(object.name.slice(folder.length))?.[1];
    if (number === undefined || object.isLarge) continue;
    const list = found.parts.get(Number(number)) ?? [];
    found.parts.set(Number(number), [...list, object]);
  }
  return found;
}

/** A new name for the part with this number, counted from 1. */
export const partName = (name: string, number: number): string =>
  `${partsFolder(name)}${String(number).padStart(6, '0')}.${randomBytes(4).toString('hex')}`;

/** Size of parts in bytes: the wanted one within the limits of the service. Throws CLOUD. */
export async function partSize(
  api: SwiftApi,
  wanted: number | undefined,
  signal?: AbortSignal,
): Promise<number> {
  const { maxFileBytes, slo } = await api.info(signal);
  return Math.min(Math.max(wanted ?? PART_BYTES, slo?.minSegmentBytes ?? 1), maxFileBytes);
}

/** Removes the parts and inner manifests an earlier run left that are not among the names in use. Throws CLOUD. */
export async function removeUnused(
  api: SwiftApi,
  container: string,
  old: Leftovers,
  used: ReadonlySet<string>,
  signal?: AbortSignal,
): Promise<void> {
  await removeAll(
    api,
    container,
    old.names.filter((n) => !used.has(n)),
    signal,
  );
}
