/**
 * What compares parts of a file with each other (a rule with the targets it names) is only asked once every part is right. So the
 * wrong parts are replaced by right ones that say nothing, and what is then found wrong is told with the rest.
 */

import { SYNC_NAME } from '../../../core/sync/config.ts';

const PLACEHOLDERS: Readonly<Record<string, unknown>> = {
  sources: { job: 'x' },
  targets: { platform: 'aws' },
  notify: { command: ['x'] },
};

/** A copy of the file's value in which nothing stands at the given paths. */
export function withoutWrong(value: unknown, paths: readonly (readonly PropertyKey[])[]): unknown {
  const copy: unknown = structuredClone(value);
  if (typeof copy !== 'object' || copy === null || Array.isArray(copy)) return {};
  const root = copy as Record<PropertyKey, unknown>;
  for (const path of paths) {
    const [section = '', name] = path;
    const placeholder = PLACEHOLDERS[String(section)];
    if (section === 'sync') root.sync = 'x';
    else if (placeholder !== undefined) replace(root, section, name, placeholder);
    // of a window one time means nothing without the other
    else if (section === 'window' || section === 'schedule') delete root[section];
    else drop(root, path);
  }
  root.sync ??= 'x';
  return root;
}

function replace(
  root: Record<PropertyKey, unknown>,
  section: PropertyKey,
  name: PropertyKey | undefined,
  placeholder: unknown,
): void {
  const held = root[section];
  const isHolder = typeof held === 'object' && held !== null;
  if (name === undefined || !isHolder) {
    root[section] = section === 'notify' ? [] : { x: placeholder };
    return;
  }
  const holder = held as Record<PropertyKey, unknown>;
  if (!Object.hasOwn(holder, name)) return;
  if (Array.isArray(holder) || SYNC_NAME.test(String(name))) {
    holder[name] = structuredClone(placeholder);
    return;
  }
  // a name that is none cannot be named by a rule without being wrong there as well
  delete holder[name];
  if (Object.keys(holder).length === 0) holder.x = structuredClone(placeholder);
}

/** Takes away the key that holds the wrong value, with the whole list when it is an item of one. */
function drop(root: Record<PropertyKey, unknown>, path: readonly PropertyKey[]): void {
  let holder: Record<PropertyKey, unknown> = root;
  for (const [at, step] of path.entries()) {
    const inner = holder[step];
    const next = path[at + 1];
    const isLast = next === undefined;
    const isListOfWords = typeof next === 'number' && (step !== 'rules' || at !== 0);
    if (isLast || isListOfWords || typeof inner !== 'object' || inner === null) {
      if (Array.isArray(holder)) holder[step] = {};
      else delete holder[step];
      return;
    }
    holder = inner as Record<PropertyKey, unknown>;
  }
}
