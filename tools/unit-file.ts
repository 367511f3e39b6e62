/** systemd unit files: assignments, the absolute paths they name, and what is enabled by links. */

/** One assignment. */
export interface UnitSetting {
  section: string;
  key: string;
  value: string;
}

/** Reads a unit file or drop-in. Continuation lines are joined; comments and other lines are left out. */
export function parseUnit(text: string): UnitSetting[] {
  const settings: UnitSetting[] = [];
  let section = '';
  let open: string | undefined;
  for (const raw of text.split('\n')) {
    const line = raw.trim();
    // Comments inside a continued assignment are skipped, as systemd does.
    if (/^[#;]/.test(line)) continue;
    const joined: string = open === undefined ? line : `${open} ${line}`;
    open = undefined;
    if (joined.endsWith('\\')) {
      open = joined.slice(0, -1).trimEnd();
      continue;
    }
    const head = /^\[(.+)\]$/.exec(joined);
    if (head !== null) {
      section = head[1] ?? '';
      continue;
    }
    const match = /^([A-Za-z][A-Za-z0-9-]*)\s*=\s*(.*)$/.exec(joined);
    if (match !== null) settings.push({ section, key: match[1] ?? '', value: match[2] ?? '' });
  }
  return settings;
}

const PATH_KEYS =
  /^(Exec(Start|StartPre|StartPost|Stop|StopPost|Reload|Condition)|WorkingDirectory|RootDirectory|RootImage|EnvironmentFile|RequiresMountsFor|ReadWritePaths|ReadOnlyPaths|BindPaths|BindReadOnlyPaths|PIDFile|Where|What|Path(Exists|ExistsGlob|Changed|Modified)|DirectoryNotEmpty|Condition(Path.*|Directory.*|File.*)|Standard(Output|Error|Input)|LoadCredential|Environment)$/;

const STATE_DIRECTORIES: Readonly<Record<string, string>> = {
  StateDirectory: '/var/lib',
  LogsDirectory: '/var/log',
  CacheDirectory: '/var/cache',
};

/** Absolute paths the settings name, each once, in order. Specifiers other than `%i` and `%I` cut a path. */
export function unitPaths(settings: readonly UnitSetting[], instance = ''): string[] {
  const paths = new Set<string>();
  for (const { key, value } of settings) {
    const base = STATE_DIRECTORIES[key];
    if (base !== undefined) {
      for (const name of value.split(/\s+/)) {
        const dir = name.split(':')[0] ?? '';
        if (dir !== '' && !dir.startsWith('/')) paths.add(`${base}/${dir}`);
      }
      continue;
    }
    if (!PATH_KEYS.test(key)) continue;
    const text = value.replaceAll(/%[iI]/g, instance);
    for (const match of text.matchAll(/(?<![A-Za-z0-9_.)}/%]|:(?=\/\/))\/[^\s"';,:|<>&(){}[\]*?$%=]+/g)) {
      const path = match[0].replace(/\/+/g, '/').replace(/(.)\/$/, '$1');
      if (path !== '/' && !path.split('/').includes('..')) paths.add(path);
    }
  }
  return [...paths];
}

/** `getty@tty1.service` → template `getty@.service`, instance `tty1`; undefined for other names. */
export function templateOf(unit: string): { template: string; instance: string } | undefined {
  const match = /^([^@]+@)([^@]+)(\.[a-z]+)$/.exec(unit);
  return match === null ? undefined : { template: `${match[1]}${match[3]}`, instance: match[2] ?? '' };
}

/** Name of a unit, no path. */
export const UNIT_NAME = /^[A-Za-z0-9:_.\\@-]+\.(service|socket|timer|path|mount|automount|swap|target)$/;
