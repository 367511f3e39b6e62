/** Which units need which paths of the guest: from unit files, the configuration of common daemons, and cron. */
import * as path from 'node:path/posix';
import type { Service } from '../../core/facts.ts';
import type { Bundle } from './bundle.ts';

/** A unit and a path it needs. */
export interface Need {
  unit: string;
  path: string;
}

/** Folders everything lies in: naming one of them says nothing. */
const GENERIC = new Set(
  '/ /bin /boot /dev /etc /home /lib /opt /proc /root /run /sbin /sys /tmp /usr /var /var/cache /var/lib /var/log /var/run /var/spool'.split(
    ' ',
  ),
);

/** A setting of a daemon that names a folder. */
interface DaemonSetting {
  units: readonly string[];
  files: (bundle: Bundle) => string[];
  setting: RegExp;
}

const DAEMONS: readonly DaemonSetting[] = [
  {
    units: ['nginx.service'],
    files: (b) => b.below('/etc/nginx'),
    setting: /^[ \t]*(?:root|alias)\s+["']?(\/[^;"']+)["']?\s*;/gm,
  },
  {
    units: ['apache2.service', 'httpd.service'],
    files: (b) => b.below('/etc/apache2'),
    setting: /^[ \t]*(?:DocumentRoot|Alias\s+\S+|WSGIScriptAlias\s+\S+)\s+["']?(\/[^"'\n]+)["']?\s*$/gim,
  },
  {
    units: ['mariadb.service', 'mysql.service', 'mysqld.service'],
    files: (b) => [...b.below('/etc/mysql'), '/etc/my.cnf'],
    setting: /^[ \t]*(?:datadir|innodb_data_home_dir|log_bin)\s*=\s*["']?(\/[^"'\n#]+)/gm,
  },
  {
    units: ['postgresql.service'],
    files: (b) => b.below('/etc/postgresql'),
    setting: /^[ \t]*data_directory\s*=\s*'(\/[^'\n]+)'/gm,
  },
  {
    units: ['redis-server.service', 'redis.service'],
    files: (b) => b.below('/etc/redis'),
    setting: /^[ \t]*dir\s+["']?(\/[^"'\n]+)/gm,
  },
  {
    units: ['mongod.service', 'mongodb.service'],
    files: () => ['/etc/mongod.conf', '/etc/mongodb.conf'],
    setting: /^[ \t]*db[Pp]ath\s*[:=]\s*["']?(\/[^"'\n#]+)/gm,
  },
  {
    units: ['cron.service', 'crond.service'],
    files: (b) => ['/etc/crontab', ...b.below('/etc/cron.d'), ...b.below('/var/spool/cron')],
    setting: /(?<=[ \t=<>"'])(\/[^\s"';|&<>()$`*]+)/g,
  },
];

/** Units that run after boot: enabled themselves, or started by an enabled timer, socket or path unit. */
function activeUnits(services: readonly Service[]): Set<string> {
  const active = new Set<string>();
  for (const { unit, enabled } of services) {
    if (!enabled) continue;
    active.add(unit);
    if (/\.(timer|socket|path)$/.test(unit)) active.add(unit.replace(/\.\w+$/, '.service'));
  }
  return active;
}

/** All needs found. */
export function findNeeds(bundle: Bundle, services: readonly Service[]): Need[] {
  const active = activeUnits(services);
  const needs: Need[] = services
    .filter((s) => active.has(s.unit))
    .flatMap((s) => s.paths.map((p) => ({ unit: s.unit, path: p })));
  for (const { units, files, setting } of DAEMONS) {
    const here = units.filter((u) => active.has(u));
    if (here.length === 0) continue;
    for (const file of files(bundle)) {
      const text = bundle.text(file);
      if (text === undefined || text.length > 262_144) continue;
      const settings = text.replace(/^[ \t]*#.*$/gm, '');
      // Debian runs each PostgreSQL cluster as an instance its generator makes.
      const cluster = /^\/etc\/postgresql\/([^/]+)\/([^/]+)\//.exec(file);
      const instances = cluster === null ? [] : [`postgresql@${cluster[1]}-${cluster[2]}.service`];
      for (const match of settings.matchAll(setting)) {
        const named = path.resolve('/', (match[1] ?? '').trim());
        for (const unit of [...here, ...instances]) needs.push({ unit, path: named });
      }
    }
  }
  return needs;
}

/** Paths units are known to use although no file says so. */
export function usualNeeds(units: readonly string[], dir: string, services: readonly Service[]): Need[] {
  const active = activeUnits(services);
  return units.filter((u) => active.has(u)).map((unit) => ({ unit, path: dir }));
}

/** Units that need something in `candidate`, sorted; `multi-user.target` when none is known. */
export function neededBy(candidate: string, needs: readonly Need[]): string[] {
  const units = new Set<string>();
  for (const { unit, path: needed } of needs) {
    const inside = needed === candidate || needed.startsWith(`${candidate}/`);
    const around = candidate.startsWith(`${needed}/`) && !GENERIC.has(needed);
    if (inside || around) units.add(unit);
  }
  return units.size === 0 ? ['multi-user.target'] : [...units].sort();
}
