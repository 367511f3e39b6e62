/**
 * The `auto` rule set: which paths could travel beside the image. docs/stages/inspect.md describes it for users.
 * A path is only proposed when no package owns a file in it.
 */
import type { Candidate, Facts, Service } from '../../core/facts.ts';
import { MIB } from '../../core/sizes.ts';
import type { Bundle } from './bundle.ts';
import { findNeeds, type Need, neededBy, usualNeeds } from './needs.ts';

/** Smaller trees stay in the image: fetching them costs more than it saves. */
export const MIN_BYTES = 16 * MIB;
/** Homes hold what a login needs, so only large ones are worth it. */
export const MIN_HOME_BYTES = 64 * MIB;
/** Logs below this stay. */
export const MIN_LOG_BYTES = 50 * MIB;

const DATABASES: Readonly<Record<string, readonly string[]>> = {
  mysql: ['mariadb.service', 'mysql.service', 'mysqld.service'],
  mariadb: ['mariadb.service'],
  postgresql: ['postgresql.service'],
  pgsql: ['postgresql.service'],
  mongodb: ['mongod.service', 'mongodb.service'],
  mongo: ['mongod.service'],
  redis: ['redis-server.service', 'redis.service'],
  valkey: ['valkey-server.service', 'valkey.service'],
  elasticsearch: ['elasticsearch.service'],
  opensearch: ['opensearch.service'],
  influxdb: ['influxdb.service'],
  cassandra: ['cassandra.service'],
  couchdb: ['couchdb.service'],
  clickhouse: ['clickhouse-server.service'],
  neo4j: ['neo4j.service'],
  prometheus: ['prometheus.service'],
  'victoria-metrics': ['victoria-metrics.service'],
  rabbitmq: ['rabbitmq-server.service'],
  firebird: ['firebird.service'],
  ldap: ['slapd.service'],
};

const DUMP_NAME = /(dump|backup|bak|export|snapshot|archive)s?\b/i;

/** Sizes in bytes by absolute path, as du allocated them; names that are no UTF-8 are left out. */
export function parseSizes(list: Buffer): Map<string, number> {
  const sizes = new Map<string, number>();
  for (let from = 0; from < list.length; ) {
    const found = list.indexOf(0, from);
    const end = found === -1 ? list.length : found;
    const record = list.subarray(from, end).toString('utf8');
    from = end + 1;
    const at = record.indexOf('\t');
    if (at <= 0 || record.includes('\ufffd')) continue;
    sizes.set(`/${record.slice(at + 1).replace(/^\/+/, '')}`, Number(record.slice(0, at)));
  }
  return sizes;
}

/** Every folder that holds something a package owns. */
export function ownedFolders(files: Iterable<string>): Set<string> {
  const folders = new Set<string>();
  for (const file of files) {
    folders.add(file);
    for (let at = file.lastIndexOf('/'); at > 0; at = file.lastIndexOf('/', at - 1)) {
      const folder = file.slice(0, at);
      if (folders.has(folder)) break;
      folders.add(folder);
    }
  }
  return folders;
}

interface Proposal {
  path: string;
  rule: string;
  reason: string;
  needs?: Need[];
}

/** Direct children of a folder with their sizes. */
function children(sizes: ReadonlyMap<string, number>, dir: string): [string, number][] {
  return [...sizes].filter(
    ([p]) => p.startsWith(`${dir}/`) && !p.slice(dir.length + 1).includes('/') && !p.endsWith('/lost+found'),
  );
}

function proposeLogs(sizes: ReadonlyMap<string, number>): Proposal[] {
  const reason = 'a large log that nothing needs to start';
  return children(sizes, '/var/log')
    .filter(([p]) => p !== '/var/log/journal')
    .flatMap(([dir, bytes]): Proposal[] => {
      if (bytes < MIN_LOG_BYTES) return [];
      const large = children(sizes, dir).filter(([, b]) => b >= MIN_LOG_BYTES);
      const rest = bytes - large.reduce((sum, [, b]) => sum + b, 0);
      // Single large files go alone, so the folder a daemon writes to stays.
      if (large.length > 0 && rest < MIN_LOG_BYTES)
        return large.map(([p]) => ({ path: p, rule: 'logs', reason }));
      return [{ path: dir, rule: 'logs', reason }];
    });
}

function propose(
  sizes: ReadonlyMap<string, number>,
  owned: ReadonlySet<string>,
  users: Facts['users'],
  services: readonly Service[],
): Proposal[] {
  const free = (p: string) => !owned.has(p);
  const large = ([p, bytes]: [string, number]) => bytes >= MIN_BYTES && free(p);
  const proposals: Proposal[] = [];
  for (const [path] of children(sizes, '/var/lib').filter(large)) {
    const name = path.slice('/var/lib/'.length);
    const units = DATABASES[name.toLowerCase()];
    if (units !== undefined) {
      const needs = usualNeeds(units, path, services);
      proposals.push({ path, rule: 'databases', reason: `data of a database (${name})`, needs });
    } else if (DUMP_NAME.test(name)) {
      proposals.push({ path, rule: 'dumps', reason: 'dumps or backups no package owns' });
    }
  }
  for (const [path] of children(sizes, '/var/backups').filter(large)) {
    proposals.push({ path, rule: 'dumps', reason: 'dumps or backups no package owns' });
  }
  for (const [path] of children(sizes, '/srv').filter(large)) {
    proposals.push({ path, rule: 'srv', reason: 'data served by this system' });
  }
  for (const [path] of children(sizes, '/var/www').filter(large)) {
    proposals.push({ path, rule: 'www', reason: 'content of a web site' });
  }
  for (const [path, bytes] of children(sizes, '/opt')) {
    const parts = free(path) ? [[path, bytes] as [string, number]] : children(sizes, path);
    for (const [part] of parts.filter(large)) {
      proposals.push({ path: part, rule: 'opt', reason: 'software or data no package owns' });
    }
  }
  for (const user of users) {
    const bytes = sizes.get(user.home);
    if (!user.human || user.uid === 0 || bytes === undefined || bytes < MIN_HOME_BYTES || !free(user.home))
      continue;
    const login = user.authorizedKeys > 0 ? '; logging in with a key needs its .ssh folder to stay' : '';
    proposals.push({ path: user.home, rule: 'homes', reason: `home of a person${login}` });
  }
  return [...proposals, ...proposeLogs(sizes).filter((p) => free(p.path))];
}

/** Candidates, the largest first; `files` is 0 until counted. */
export function findCandidates(
  bundle: Bundle,
  users: Facts['users'],
  services: readonly Service[],
): Candidate[] {
  const sizes = parseSizes(bundle.list('sizes'));
  const owned = ownedFolders(bundle.records('owned'));
  const needs = findNeeds(bundle, services);
  const proposals = propose(sizes, owned, users, services);
  const taken = new Set<string>();
  return proposals
    .filter(({ path }) => !taken.has(path) && taken.add(path))
    .map(({ path, rule, reason, needs: usual }) => ({
      path,
      bytes: sizes.get(path) ?? 0,
      files: 0,
      rule,
      reason,
      neededBy: neededBy(path, [...needs, ...(usual ?? [])]),
    }))
    .sort((a, b) => b.bytes - a.bytes || (a.path < b.path ? -1 : 1));
}
