/** What the schema of a sync file cannot say. Asks nobody: no file, no cloud. */
import { Cron } from 'croner';
import * as z from 'zod';
import { asPortError } from '../../../core/errors.ts';
import { TargetPlatform } from '../../../core/sync/config.ts';
import { printable } from '../../../core/text.ts';
import { openStore } from '../../../drivers/stores/index.ts';
import { notForSync } from '../../../drivers/sync-options.ts';
import { uploaderOf } from '../../../drivers/uploaders.ts';
import { ConvertOptions } from '../../request/build.ts';
import { valueAt, type Wrong, wrongPlaces } from './issues.ts';
import { knownKeys } from './schema-keys.ts';

type Tree = Record<string, unknown>;
const isTree = (value: unknown): value is Tree =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const treeAt = (root: unknown, at: readonly PropertyKey[]): [string, unknown][] => {
  const value = valueAt(root, at);
  return isTree(value) ? Object.entries(value) : [];
};
const listAt = (root: unknown, at: readonly PropertyKey[]): [number, unknown][] => {
  const value = valueAt(root, at);
  return Array.isArray(value) ? [...value.entries()] : [];
};

/** Longest value of a property that every cloud takes, as in rules.ts. */
const VALUE_CHARS = 255;
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/;
const FIELDS = ['name', 'series', 'version', 'date'];
/** What this program and the clouds say of an image themselves. */
const RESERVED =
  /^(port_image|os_hash_|os_hidden$)|^(id|name|owner|status|size|checksum|visibility|protected|tags|disk_format|container_format|min_disk|min_ram|created_at|updated_at|virtual_size|locations|direct_url|file|self|schema|stores)$/;

/** Everything wrong beyond the schema, in a file of any shape. */
export function moreWrong(root: unknown): Wrong[] {
  return [
    ...treeAt(root, ['sources']).flatMap(([name, source]) => wrongSource(name, source)),
    ...treeAt(root, ['targets']).flatMap(([name, target]) => wrongTarget(name, target)),
    ...samePlaces(root),
    ...listAt(root, ['rules']).flatMap(([at, rule]) => wrongRule(at, rule, root)),
    ...wrongTimes(root),
    ...wrongPath(['state'], valueAt(root, ['state'])),
    ...listAt(root, ['notify']).flatMap(([at, one]) =>
      wrongText(['notify', at, 'command'], valueAt(one, ['command', 0])),
    ),
  ];
}

function wrongSource(name: string, source: unknown): Wrong[] {
  const at = ['sources', name];
  return [
    ...wrongStore([...at, 'store'], valueAt(source, ['store'])),
    ...wrongPath([...at, 'job'], valueAt(source, ['job'])),
    ...wrongPath([...at, 'folder', 'path'], valueAt(source, ['folder', 'path'])),
    ...listAt(source, ['servers']).flatMap(([index, server]) =>
      wrongPath([...at, 'servers', index, 'job'], valueAt(server, ['job'])),
    ),
    ...listAt(source, ['servers']).flatMap(([index, server]) =>
      wrongOptions([...at, 'servers', index, 'options'], valueAt(server, ['options'])),
    ),
    ...twice(
      listAt(source, ['servers']).map(([index, server]) => [
        [...at, 'servers', index, 'name'],
        valueAt(server, ['name']),
      ]),
    ),
    // one folder for two machines: each would take the other's disk for its own last night
    ...twice(
      listAt(source, ['servers']).map(([index, server]) => [
        [...at, 'servers', index, 'job'],
        valueAt(server, ['job']),
      ]),
    ),
  ];
}

/** Options of `convert`, by the schema of its configuration file. */
function wrongOptions(at: PropertyKey[], options: unknown): Wrong[] {
  if (!isTree(options)) return [];
  const parsed = ConvertOptions.safeParse(options);
  if (parsed.success) return [];
  const found = wrongPlaces(parsed.error.issues, options, (inner) => knownKeys(inner, ConvertOptions));
  return found.map((one) => ({ ...one, path: [...at, ...one.path] }));
}

function twice(found: [PropertyKey[], unknown][]): Wrong[] {
  const seen = new Set<unknown>();
  return found.flatMap(([at, value]) => {
    if (typeof value !== 'string') return [];
    const isSecond = seen.has(value);
    seen.add(value);
    return isSecond ? [{ path: at, text: 'another server here has the same' }] : [];
  });
}

/** The platform's own schema, as the client of the target reads it. */
function wrongTarget(name: string, target: unknown): Wrong[] {
  const at = ['targets', name];
  const wrong = wrongStore([...at, 'store'], valueAt(target, ['store']));
  const platform = valueAt(target, ['platform']);
  const options = valueAt(target, ['options']) ?? {};
  const known = TargetPlatform.safeParse(platform);
  if (!known.success || !isTree(options)) return wrong;
  const { Options } = uploaderOf(known.data);
  if (Options instanceof z.ZodObject)
    for (const [key, instead] of notForSync(known.data, options, Options))
      wrong.push({ path: [...at, 'options', key], text: `not for a sync: ${instead}` });
  const parsed = Options.safeParse(options);
  if (parsed.success) return wrong;
  const found = wrongPlaces(parsed.error.issues, options, (inner) => knownKeys(inner, Options));
  return [...wrong, ...found.map((one) => ({ ...one, path: [...at, 'options', ...one.path] }))];
}

/** What tells one place of a platform from another: options of a target. */
const PLACES: Readonly<Record<string, readonly string[]>> = {
  openstack: ['cloud'],
  aws: ['region', 'profile'],
  azure: ['storageAccount', 'container'],
  gcp: ['project'],
};

/** Marks of a sync do not tell its targets apart: two in one place would each take the other's images for its own. */
function samePlaces(root: unknown): Wrong[] {
  const seen = new Map<string, string>();
  return treeAt(root, ['targets']).flatMap(([name, target]) => {
    const platform = String(valueAt(target, ['platform']));
    const keys = PLACES[platform];
    if (keys === undefined || valueAt(target, ['options', keys[0] ?? '']) === undefined) return [];
    const place = JSON.stringify([platform, ...keys.map((key) => valueAt(target, ['options', key]) ?? '')]);
    const other = seen.get(place);
    seen.set(place, other ?? name);
    if (other === undefined) return [];
    return [{ path: ['targets', name], text: `the same place as ${other}; take another sync for it` }];
  });
}

function wrongStore(at: PropertyKey[], url: unknown): Wrong[] {
  if (typeof url !== 'string') return [];
  if (/^file:(?!\/)/.test(url)) return [{ path: at, text: 'a file: store needs an absolute path' }];
  try {
    openStore(url);
    return [];
  } catch (error) {
    const { message, hint } = asPortError(error);
    return [{ path: at, text: hint === undefined ? message : `${message}; ${hint}` }];
  }
}

/** Absolute, or relative to the file. */
function wrongPath(at: PropertyKey[], value: unknown): Wrong[] {
  if (typeof value !== 'string') return [];
  if (value.startsWith('~'))
    return [{ path: at, text: '~ is not read here: an absolute path, or one from the folder of this file' }];
  if (/^[a-z][a-z0-9+.-]+:/i.test(value))
    return [{ path: at, text: 'a folder of this machine is wanted, not a URL' }];
  return wrongText(at, value);
}

function wrongText(at: PropertyKey[], value: unknown): Wrong[] {
  return typeof value === 'string' && CONTROL.test(value)
    ? [{ path: at, text: 'holds control characters' }]
    : [];
}

function wrongRule(index: number, rule: unknown, root: unknown): Wrong[] {
  const at = ['rules', index];
  const wrong: Wrong[] = [];
  const name = valueAt(rule, ['name']);
  if (typeof name === 'string') {
    wrong.push(...wrongText([...at, 'name'], name));
    for (const [, field = ''] of name.matchAll(/\{([^{}]*)\}/g)) {
      if (!FIELDS.includes(field))
        wrong.push({
          path: [...at, 'name'],
          text: `{${printable(field)}} is none of ${FIELDS.map((f) => `{${f}}`).join(' ')}`,
        });
    }
  }
  for (const [key, value] of treeAt(rule, ['properties', 'set'])) {
    const place = [...at, 'properties', 'set', key];
    if (RESERVED.test(key)) wrong.push({ path: place, text: 'this property is not yours to set' });
    else if (key === '' || key.length > VALUE_CHARS || CONTROL.test(key))
      wrong.push({ path: place, text: `not a name of a property: 1 to ${VALUE_CHARS} characters` });
    if (typeof value !== 'string') continue;
    wrong.push(...wrongText(place, value));
    if (value.length > VALUE_CHARS)
      wrong.push({ path: place, text: `longer than ${VALUE_CHARS} characters` });
  }
  for (const [which, member] of listAt(rule, ['members']))
    if (typeof member === 'string' && (member === '' || CONTROL.test(member)))
      wrong.push({ path: [...at, 'members', which], text: 'not the id of a project or an account' });
  if (valueAt(rule, ['data']) === 'carry') wrong.push(...wrongCarry(index, rule, root));
  wrong.push(...wrongVisibility(index, rule, root));
  return wrong;
}

/** Who may see an image, by platform; Glance alone has all four. */
const VISIBILITIES: Readonly<Record<string, readonly string[]>> = {
  aws: ['private', 'shared', 'public'],
  azure: ['private'],
  gcp: ['private'],
};

/** What a target's platform cannot show so; not where a rule before this one takes everything for that target. */
function wrongVisibility(index: number, rule: unknown, root: unknown): Wrong[] {
  const visibility = valueAt(rule, ['visibility']);
  if (typeof visibility !== 'string') return [];
  const named = valueAt(rule, ['targets']);
  const before = listAt(root, ['rules']).slice(0, index);
  return treeAt(root, ['targets']).flatMap(([name, target]) => {
    if (Array.isArray(named) && !named.includes(name)) return [];
    const known = VISIBILITIES[String(valueAt(target, ['platform']))];
    const isTaken = before.some(([, other]) => {
      const targets = valueAt(other, ['targets']);
      return valueAt(other, ['match']) === undefined && (!Array.isArray(targets) || targets.includes(name));
    });
    if (known === undefined || known.includes(visibility) || isTaken) return [];
    return [
      {
        path: ['rules', index, 'visibility'],
        text: `${name} is ${String(valueAt(target, ['platform']))}, where an image is ${known.join(' or ')}; put a rule for ${name} before this one`,
      },
    ];
  });
}

/** Data sets need a store on both sides. */
function wrongCarry(index: number, rule: unknown, root: unknown): Wrong[] {
  const from = valueAt(rule, ['match', 'source']);
  const sources = treeAt(root, ['sources']).filter(([name]) => from === undefined || name === from);
  const named = valueAt(rule, ['targets']);
  const targets = treeAt(root, ['targets']).filter(([name]) => !Array.isArray(named) || named.includes(name));
  const at = ['rules', index, 'data'];
  const wrong: Wrong[] = [];
  if (sources.length > 0 && sources.every(([, source]) => valueAt(source, ['store']) === undefined)) {
    const names = sources.map(([name]) => `sources.${name}.store`).join(' or ');
    wrong.push({ path: at, text: `nothing says where the data sets are: ${names} is missing` });
  }
  for (const [name, target] of targets)
    if (isTree(target) && target.store === undefined)
      wrong.push({ path: at, text: `nothing says where the data sets go: targets.${name}.store is missing` });
  return wrong;
}

function wrongTimes(root: unknown): Wrong[] {
  const wrong: Wrong[] = [];
  const from = valueAt(root, ['window', 'from']);
  if (typeof from === 'string' && from === valueAt(root, ['window', 'to']))
    wrong.push({
      path: ['window', 'to'],
      text: 'the same as `from`; leave `window` out when all day is right',
    });
  const cron = valueAt(root, ['schedule', 'cron']);
  if (typeof cron !== 'string') return wrong;
  const at = ['schedule', 'cron'];
  try {
    const job = new Cron(cron, { paused: true, mode: '5-or-6-parts' });
    if (job.nextRun() === null) wrong.push({ path: at, text: 'this time never comes' });
    job.stop();
  } catch (error) {
    const why = printable((error as Error).message.replace(/^Cron\w*: */, '')).slice(0, 200);
    wrong.push({ path: at, text: `not a cron pattern: ${why}; such as '30 1 * * *'` });
  }
  return wrong;
}
