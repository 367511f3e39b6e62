/** The command behind scripts/cloud. */
import { chmodSync, existsSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import * as path from 'node:path';
import { parseArgs } from 'node:util';
import { clientEnv, mergedClouds, writeCloudsYaml } from './cloud.d/clients.ts';
import { EXTRAS, type Extra, extraConditions, extraEnv, prepareExtras } from './cloud.d/extras.ts';
import { glance, initGlance } from './cloud.d/glance.ts';
import { fillKeystone, initKeystone, keystone } from './cloud.d/keystone.ts';
import { folderOf, NAME, portsFor } from './cloud.d/names.ts';
import { conditions, type Service, start, stop, waitHealthy } from './cloud.d/processes.ts';
import { Cloud, DEFAULTS, type Settings } from './cloud.d/settings.ts';
import { detachDevices, initSwift, swift } from './cloud.d/swift.ts';
import { frontService, serveTls, tlsFront } from './cloud.d/tls.ts';

const OPTIONS = {
  state: { type: 'string' },
  name: { type: 'string', multiple: true },
  out: { type: 'string' },
  'ports-base': { type: 'string' },
  'token-life': { type: 'string' },
  'max-object-mib': { type: 'string' },
  'max-segments': { type: 'string' },
  'image-cap': { type: 'string' },
  devices: { type: 'string' },
  tls: { type: 'boolean' },
  with: { type: 'string' },
  'without-openstack': { type: 'boolean' },
  json: { type: 'boolean' },
  forget: { type: 'boolean' },
} as const;

const NUMBERS = {
  'ports-base': 'portsBase',
  'token-life': 'tokenLifeS',
  'max-object-mib': 'maxObjectMib',
  'max-segments': 'maxSegments',
  'image-cap': 'imageCapBytes',
} as const;

const COMMANDS = ['up', 'down', 'status', 'env', 'clouds'];

class Usage extends Error {}

const CACHE = process.env.PORT_IMAGE_CACHE ?? '.';
const isCloud = (dir: string): boolean => existsSync(path.join(dir, 'settings.json'));

async function main(): Promise<void> {
  const { positionals, values } = readCommandLine();
  const [command] = positionals;
  if (command === 'clouds') return writeMerged(values.name ?? [], values.out);
  const name = values.name?.[0];
  const dir =
    name === undefined ? path.resolve(values.state ?? path.join(CACHE, 'cloud')) : folderOf(CACHE, name);
  if (command !== 'up' && !isCloud(dir)) {
    if (command === 'down') return;
    throw new Error(
      `no cloud in ${dir}; start one: scripts/cloud up${name === undefined ? '' : ` --name ${name}`}`,
    );
  }
  const given = readSettings(values);
  if (name !== undefined) given.name = name;
  // Chosen once, then remembered.
  if (name !== undefined && !isCloud(dir)) given.portsBase ??= portsFor(CACHE, name);
  const cloud = new Cloud(dir, given);
  if (command === 'up') await up(cloud);
  else if (command === 'down') await down(cloud, values.forget === true);
  else if (command === 'tls-front') serveTls(cloud);
  else if (command === 'status') await status(cloud, values.json === true);
  else for (const [name, value] of Object.entries(envOf(cloud))) print(`export ${name}=${quote(value)}`);
}

function readCommandLine() {
  try {
    const parsed = parseArgs({ args: process.argv.slice(2), options: OPTIONS, allowPositionals: true });
    if (parsed.positionals.length !== 1 || ![...COMMANDS, 'tls-front'].includes(parsed.positionals[0] ?? ''))
      throw new Usage(`one of ${COMMANDS.join(', ')}`);
    const { name: names = [], state } = parsed.values;
    const wrong = names.find((name) => !NAME.test(name));
    if (wrong !== undefined)
      throw new Usage(`--name ${JSON.stringify(wrong)}: letters, digits and dashes, at most 20`);
    if (names.length > 0 && state !== undefined) throw new Usage('--name or --state, not both');
    if (names.length > 1 && parsed.positionals[0] !== 'clouds') throw new Usage('one --name at a time');
    if (names.length === 0 && parsed.positionals[0] === 'clouds')
      throw new Usage('clouds: name each one, such as --name A --name B');
    return parsed;
  } catch (error) {
    throw new Usage((error as Error).message);
  }
}

function readSettings(values: ReturnType<typeof readCommandLine>['values']): Partial<Settings> {
  const settings: Partial<Settings> = {};
  for (const [option, field] of Object.entries(NUMBERS) as [
    keyof typeof NUMBERS,
    (typeof NUMBERS)[keyof typeof NUMBERS],
  ][]) {
    const text = values[option];
    if (text === undefined) continue;
    if (!/^[1-9]\d{0,14}$/.test(text)) throw new Usage(`--${option} ${text}: not a positive whole number`);
    settings[field] = Number(text);
  }
  if ((settings.portsBase ?? DEFAULTS.portsBase) > 65_500) throw new Usage('--ports-base: at most 65500');
  if (values.tls) settings.tls = true;
  if (values['without-openstack']) settings.openstack = false;
  if (values.with !== undefined) settings.with = extrasNamed(values.with);
  if (values.devices !== undefined) {
    const known = ['auto', 'tmpfs', 'xfs', 'folder'] as const;
    const devices = known.find((one) => one === values.devices);
    if (devices === undefined) throw new Usage(`--devices: one of ${known.join(', ')}`);
    settings.devices = devices;
  }
  return settings;
}

/** `none`, or names with commas between. */
function extrasNamed(list: string): Extra[] {
  if (list === 'none') return [];
  return EXTRAS.filter((known) => {
    const wrong = list.split(',').find((name) => !(EXTRAS as readonly string[]).includes(name));
    if (wrong !== undefined) throw new Usage(`--with ${wrong}: one of ${EXTRAS.join(', ')}, none`);
    return list.split(',').includes(known);
  });
}

async function up(cloud: Cloud): Promise<void> {
  // What was started and is not asked for any more.
  const unwanted = EXTRAS.filter((name) => !cloud.settings.with.includes(name));
  await Promise.all(unwanted.map((name) => stop(cloud, name)));
  if (cloud.settings.openstack) await upOpenstack(cloud);
  else await Promise.all(openstackServices(cloud).map((one) => stop(cloud, one.name)));
  const { services, failures } = await prepareExtras(cloud);
  await all(
    services.map(async (one) => {
      await start(cloud, one);
      await waitHealthy(cloud, one);
    }),
  );
  if (failures.length > 0) throw new Error(`not all services can be had:\n${failures.join('\n')}`);
}

async function upOpenstack(cloud: Cloud): Promise<void> {
  const [identity, objects] = [keystone(cloud), swift(cloud)];
  await all([
    initKeystone(cloud)
      .then(() => start(cloud, identity))
      .then(() => waitHealthy(cloud, identity))
      .then(() => fillKeystone(cloud)),
    initGlance(cloud),
    initSwift(cloud).then(() => all(objects.map((one) => start(cloud, one)))),
  ]);
  // Only now: its configuration names its endpoint in Keystone.
  const services = [identity, ...objects, glance(cloud)];
  if (cloud.settings.tls) services.push(await tlsFront(cloud));
  await all(services.map((one) => start(cloud, one)));
  await all(services.map((one) => waitHealthy(cloud, one)));
  writeCloudsYaml(cloud);
}

/** A clouds.yaml with all of them, on stdout or, 0600, in a file. */
function writeMerged(names: readonly string[], out: string | undefined): void {
  const missing = names.find((name) => !existsSync(path.join(folderOf(CACHE, name), 'clouds.yaml')));
  if (missing !== undefined)
    throw new Error(`no cloud ${missing}; start it: scripts/cloud up --name ${missing}`);
  const text = mergedClouds(names.map((name) => new Cloud(folderOf(CACHE, name), {})));
  if (out === undefined) {
    process.stdout.write(text);
    return;
  }
  const part = `${out}.${process.pid}.part`;
  writeFileSync(part, text, { mode: 0o600 });
  chmodSync(part, 0o600);
  renameSync(part, out);
}

/** Waits for all of them, then throws the first failure: nothing goes on behind an error message. */
async function all(work: Promise<unknown>[]): Promise<void> {
  for (const one of await Promise.allSettled(work)) if (one.status === 'rejected') throw one.reason;
}

/** Variables of all that was asked for. */
function envOf(cloud: Cloud): Record<string, string> {
  return { ...(cloud.settings.openstack ? clientEnv(cloud) : {}), ...extraEnv(cloud) };
}

function openstackServices(cloud: Cloud): Service[] {
  const front = cloud.settings.tls ? [frontService(cloud)] : [];
  return [keystone(cloud), glance(cloud), ...swift(cloud), ...front];
}

function allServices(cloud: Cloud): Service[] {
  return [...(cloud.settings.openstack ? openstackServices(cloud) : []), ...extraConditions(cloud)];
}

async function down(cloud: Cloud, forget: boolean): Promise<void> {
  // Also what was started with other settings.
  const names = [...openstackServices(cloud).map((one) => one.name), ...EXTRAS];
  await Promise.all(names.map((name) => stop(cloud, name)));
  detachDevices(cloud, forget);
  if (forget) rmSync(cloud.dir, { recursive: true, force: true });
}

async function status(cloud: Cloud, json: boolean): Promise<void> {
  const all = await conditions(cloud, allServices(cloud));
  if (json) print(JSON.stringify({ state: cloud.dir, cloudsYaml: cloud.path('clouds.yaml'), services: all }));
  else
    for (const one of all)
      print(
        `${one.name.padEnd(16)} ${`${one.pid ?? '-'}`.padEnd(8)} ${one.url.padEnd(30)} ${one.healthy ? 'healthy' : 'down'}`,
      );
  if (all.some((one) => !one.healthy)) process.exitCode = 1;
}

const print = (line: string) => process.stdout.write(`${line}\n`);
const quote = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

try {
  await main();
} catch (error) {
  process.stderr.write(`cloud: ${(error as Error).message}\n`);
  process.exitCode = error instanceof Usage ? 2 : 6;
}
