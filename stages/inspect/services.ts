/** Units that start at boot, and the paths they name. */
import * as path from 'node:path/posix';
import type { Service } from '../../core/facts.ts';
import { parseUnit, templateOf, UNIT_NAME, unitPaths } from '../../tools/unit-file.ts';
import type { Bundle } from './bundle.ts';

const ADMIN = '/etc/systemd/system';
const VENDOR = ['/usr/lib/systemd/system', '/lib/systemd/system'];

function unitFile(bundle: Bundle, name: string): string | undefined {
  for (const dir of [ADMIN, ...VENDOR]) {
    const file = `${dir}/${name}`;
    const target = bundle.link(file);
    if (target === '/dev/null') return undefined;
    if (bundle.text(file) !== undefined) return bundle.resolve(file);
  }
  return undefined;
}

/** The real name behind an alias such as `sshd.service` → `ssh.service`. */
function realName(bundle: Bundle, name: string, target: string): string {
  const base = path.basename(target);
  // The link of an instance points to its template.
  if (templateOf(name) !== undefined || !UNIT_NAME.test(base)) return name;
  return unitFile(bundle, base) === undefined ? name : base;
}

function dropIns(bundle: Bundle, name: string): string[] {
  const template = templateOf(name)?.template;
  return [ADMIN, ...VENDOR].flatMap((dir) =>
    [name, ...(template === undefined ? [] : [template])].flatMap((unit) =>
      bundle.texts(`${dir}/${unit}.d`, '.conf').map((f) => f.text),
    ),
  );
}

function describe(bundle: Bundle, unit: string, enabled: boolean): Service {
  const instance = templateOf(unit);
  const file =
    unitFile(bundle, unit) ?? (instance === undefined ? undefined : unitFile(bundle, instance.template));
  const texts = [...(file === undefined ? [] : [bundle.text(file) ?? '']), ...dropIns(bundle, unit)];
  const paths = new Set(texts.flatMap((t) => unitPaths(parseUnit(t), instance?.instance)));
  return { unit, enabled, ...(file === undefined ? {} : { file }), paths: [...paths].sort() };
}

/** Names an init script declares in its header, such as `Provides: nginx`. Only its own name counts. */
function sysvServices(bundle: Bundle): string[] {
  const names = new Set<string>();
  for (const dir of ['/etc/rc2.d', '/etc/rc3.d']) {
    for (const file of bundle.below(dir)) {
      const name = /\/S\d\d([A-Za-z0-9._-]+)$/.exec(file)?.[1];
      if (name !== undefined) names.add(name.replace(/\.sh$/, ''));
    }
  }
  return [...names];
}

/** Services of the guest: everything enabled, and the units the administrator put into /etc. Sorted by name. */
export function serviceFacts(bundle: Bundle): Service[] {
  const enabled = new Set<string>();
  const local = new Set<string>();
  for (const file of bundle.below(ADMIN)) {
    const name = path.basename(file);
    if (!UNIT_NAME.test(name)) continue;
    const dir = path.dirname(file);
    const target = bundle.link(file);
    if (/\.(wants|requires|upholds)$/.test(dir)) {
      if (target !== undefined) enabled.add(realName(bundle, name, target));
    } else if (dir === ADMIN && target === undefined) {
      local.add(name);
    } else if (dir === ADMIN && target !== '/dev/null' && target !== undefined) {
      // An alias exists only while its unit is enabled.
      enabled.add(realName(bundle, name, target));
    }
  }
  for (const name of sysvServices(bundle)) {
    const unit = `${name}.service`;
    const masked = [ADMIN, ...VENDOR].some((dir) => bundle.link(`${dir}/${unit}`) === '/dev/null');
    if (!masked && unitFile(bundle, unit) === undefined) enabled.add(unit);
  }
  for (const unit of [...enabled]) {
    const started = unit.replace(/\.(timer|socket|path)$/, '.service');
    if (started !== unit && unitFile(bundle, started) !== undefined) local.add(started);
  }
  const names = [...new Set([...enabled, ...local])].filter(
    (n) => !n.endsWith('.target') && !n.includes('@.'),
  );
  return names.sort().map((name) => describe(bundle, name, enabled.has(name)));
}
