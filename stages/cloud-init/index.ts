/** Puts cloud-init and the platform's agents into the guest and clears what would stop them. */
import * as os from 'node:os';
import * as path from 'node:path';
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import type { Facts } from '../../core/facts.ts';
import { makeDir } from '../../core/files.ts';
import type { AgentRole } from '../../core/platform.ts';
import { formatBytes, MIB } from '../../core/sizes.ts';
import type { Stage, StageContext } from '../../core/stage.ts';
import { withoutSecrets } from '../../core/text.ts';
import { applyEdits, recordEdits, textEdit } from '../../families/edits.ts';
import type { FileEdit, PackageSet } from '../../families/family.ts';
import { familyOf } from '../../families/registry.ts';
import { agentEdits } from './agents.ts';
import { ASIDE, type Blocker, findBlockers, UNITS } from './blockers.ts';
import { clockEdits } from './clocks.ts';
import { CONFIG_PATH, defaultUsers, hostKeyTypes, mergeDatasources, renderConfig } from './config.ts';

/** What the stage intends. */
export interface CloudInitPlan {
  set: PackageSet;
  /** True when the guest had cloud-init before; its state is then reset. */
  hadCloudInit: boolean;
  datasources: string[];
}

/** What the stage leaves in the journal. */
export interface CloudInitResult {
  packages: { name: string; version: string; requested: boolean; replaces?: string }[];
  datasources: string[];
  /** Path of the configuration in the guest. */
  config: string;
  /** Blockers that were cleared. */
  cleared: string[];
}

/** Unpacked packages are about this many times larger than their files; bytecode included. */
const UNPACKED_FACTOR = 6;
const RESERVE_BYTES = 32 * MIB;
const WHY_INSTALL = 'the new platform configures the server through it';

/** Where downloaded packages and lists are kept between runs. */
export function packageCache(): string {
  return path.join(process.env.XDG_CACHE_HOME ?? path.join(os.homedir(), '.cache'), 'port-image', 'packages');
}

/** Without these a conversion is not what was promised; agents of one platform may be missing. */
const NEEDED_ROLES: ReadonlySet<AgentRole> = new Set<AgentRole>([
  'cloud-init',
  'growpart',
  'fetch',
  'qemu-guest-agent',
]);

function rolesOf({ platforms, request }: StageContext): AgentRole[] {
  const roles = platforms.flatMap(({ needs }) => [
    ...needs.agents,
    ...(request.generalize ? (needs.templateAgents ?? []) : []),
  ]);
  return [...new Set(roles)];
}

async function makePlan(ctx: StageContext): Promise<CloudInitPlan> {
  const { facts, request } = ctx;
  const family = familyOf(facts.os);
  if (facts.os.init !== 'systemd')
    ctx.warn(
      `the guest starts with ${facts.os.init}; the order of cloud-init's steps is only tested with systemd`,
    );
  const roles = rolesOf(ctx);
  const namesOf = (list: readonly AgentRole[]) => [
    ...new Set(list.flatMap((role) => family.packagesFor(role, facts))),
  ];
  for (const role of roles) {
    if (family.packagesFor(role, facts).length > 0) continue;
    ctx.warn(`${facts.os.productName || facts.os.distro} has no package for ${role}`);
  }
  const needed = namesOf(roles.filter((role) => NEEDED_ROLES.has(role)));
  const names = namesOf(roles);
  const cacheDir = packageCache();
  await makeDir(cacheDir);
  await makeDir(ctx.paths.tmp);
  ctx.progress({ text: 'resolving packages' });
  const set = await family.resolvePackages(ctx.guest, names, {
    offlinePool: request.packages,
    optional: names.filter((name) => !needed.includes(name)),
    cacheDir,
    tmpDir: ctx.paths.tmp,
    signal: ctx.signal,
    log: ctx.log,
    warn: (text) => ctx.warn(text),
  });
  const hadCloudInit = facts.packages.some((p) => p.name === 'cloud-init');
  // What strip takes away makes room, so without it the refusal comes now and otherwise before the installation.
  if (request.strip === 'none') requireRoom(set, rootFreeBytes(facts));
  const datasources = mergeDatasources(ctx.platforms.map((p) => p.needs.datasources));
  return { set, hadCloudInit, datasources };
}

function rootFreeBytes(facts: Facts): number | undefined {
  const mount = facts.mounts.find((m) => m.path === '/usr') ?? facts.mounts.find((m) => m.path === '/');
  return facts.filesystems.find((f) => f.device === (mount?.device ?? facts.root))?.freeBytes;
}

function requireRoom(set: PackageSet, freeBytes: number | undefined): void {
  if (freeBytes === undefined || set.packages.length === 0) return;
  const needed = set.packages.reduce((sum, p) => sum + p.bytes, 0) * UNPACKED_FACTOR + RESERVE_BYTES;
  if (freeBytes < needed) {
    throw new PortError(
      'GUEST_FULL',
      `${set.packages.length} packages need about ${formatBytes(needed)} in the guest, ${formatBytes(freeBytes)} are free`,
      { hint: 'move more data out with --strip PATH, or free space on the server' },
    );
  }
}

async function configEdit(ctx: StageContext, datasources: readonly string[]): Promise<FileEdit[]> {
  const { facts, guest, request } = ctx;
  const text = renderConfig({
    datasources,
    settings: Object.assign({}, ...ctx.platforms.map((p) => p.needs.datasourceSettings ?? {})),
    generalize: request.generalize,
    hostKeyTypes: hostKeyTypes(await guest.list('/etc/ssh')),
    defaultUserExists: facts.users.some((u) => defaultUsers(facts.os).includes(u.name)),
  });
  return textEdit(
    CONFIG_PATH,
    await guest.readText(CONFIG_PATH),
    text,
    `metadata sources of ${ctx.platforms.map((p) => p.name).join(', ')}; a moved server keeps its identity`,
  );
}

function recordPackages(ctx: StageContext, set: PackageSet): void {
  const requested = set.packages.filter((p) => p.requested);
  const rest = set.packages.filter((p) => !p.requested);
  for (const p of requested)
    ctx.change({ path: p.name, action: 'install', why: WHY_INSTALL, after: `${p.name} ${p.version}` });
  for (const p of rest.filter((r) => r.replaces !== undefined)) {
    ctx.change({
      path: p.name,
      action: 'install',
      why: 'a dependency needs a newer version',
      before: `${p.name} ${p.replaces}`,
      after: `${p.name} ${p.version}`,
    });
  }
  const added = rest.filter((r) => r.replaces === undefined);
  if (added.length > 0) {
    ctx.change({
      path: `${added.length} dependencies`,
      action: 'install',
      why: `needed by ${requested.map((p) => p.name).join(', ')}`,
      after: added
        .map((p) => `${p.name} ${p.version}`)
        .join('\n')
        .slice(0, 4096),
    });
  }
}

function recordBlocker(ctx: StageContext, blocker: Blocker, before: string | undefined): void {
  ctx.change({
    path: blocker.path,
    action: blocker.kind === 'aside' ? 'rename' : 'remove',
    why: blocker.why,
    // What is only renamed is still there to read, and such files often hold passwords of the first user.
    ...(before === undefined || before.includes('\0') || blocker.kind === 'aside'
      ? {}
      : { before: withoutSecrets(before).slice(0, 4096) }),
    ...(blocker.kind === 'aside' ? { after: `${blocker.path}${ASIDE}` } : {}),
  });
}

async function clear(ctx: StageContext, blocker: Blocker): Promise<void> {
  const before = blocker.kind === 'unmask' ? '→ /dev/null' : await ctx.guest.readText(blocker.path);
  if (blocker.kind === 'aside') await ctx.guest.rename(blocker.path, `${blocker.path}${ASIDE}`);
  else await ctx.guest.remove(blocker.path);
  recordBlocker(ctx, blocker, before);
}

/** Removes what an earlier life of cloud-init remembers, so the first boot on the new platform is a first boot. */
async function resetState(ctx: StageContext): Promise<void> {
  const names = await ctx.guest.list('/var/lib/cloud');
  if (names.length === 0) return;
  for (const name of names) await ctx.guest.remove(`/var/lib/cloud/${name}`);
  ctx.change({
    path: '/var/lib/cloud',
    action: 'remove',
    why: 'state and seeds of the old platform',
    before: names.join('\n'),
  });
}

/** Makes sure systemd starts every unit of cloud-init the package ships. */
async function enableUnits(ctx: StageContext): Promise<void> {
  if (ctx.facts.os.init !== 'systemd') return;
  const links = (await ctx.guest.glob('/etc/systemd/system/*.wants/cloud-*')).map((p) => p.split('/').at(-1));
  const off: string[] = [];
  for (const unit of UNITS) {
    const file =
      (await ctx.guest.readText(`/usr/lib/systemd/system/${unit}`)) ??
      (await ctx.guest.readText(`/lib/systemd/system/${unit}`));
    if (file !== undefined && /^\[Install\]/m.test(file) && !links.includes(unit)) off.push(unit);
  }
  if (off.length === 0) return;
  await ctx.guest.guest('systemctl enable "$@"', off);
  for (const unit of off) ctx.change({ path: unit, action: 'edit', why: 'the unit was not enabled' });
}

/** Free bytes of the file system that holds /usr, now. */
async function freeNow(ctx: StageContext): Promise<number | undefined> {
  const stat = await ctx.guest.call('statvfs', ['/usr']);
  const blocks = /^bavail: (\d+)$/m.exec(stat)?.[1];
  const size = /^frsize: (\d+)$/m.exec(stat)?.[1];
  return blocks === undefined || size === undefined ? undefined : Number(blocks) * Number(size);
}

/** The stage. */
export const stage: Stage<CloudInitPlan, CloudInitResult> = {
  name: 'cloud-init',
  summary: 'install cloud-init and the agents, name the metadata sources, clear what blocks them',
  needs: ['inspect'],
  inGuest: true,
  Options: z.object({ packages: z.string().optional(), generalize: z.boolean() }),
  async plan(ctx) {
    const plan = await makePlan(ctx);
    recordPackages(ctx, plan.set);
    recordEdits(ctx, [
      ...(await configEdit(ctx, plan.datasources)),
      ...(await clockEdits(ctx.guest, ctx.facts, ctx.platforms)),
    ]);
    const { blockers, warnings } = await findBlockers(ctx.guest);
    for (const blocker of blockers) recordBlocker(ctx, blocker, undefined);
    for (const text of warnings) ctx.warn(text);
    if (plan.hadCloudInit)
      ctx.change({ path: '/var/lib/cloud', action: 'remove', why: 'state and seeds of the old platform' });
    if (ctx.facts.volumeGroups.some((g) => g.logicalVolumes.some((v) => v.device === ctx.facts.root)))
      ctx.warn('the root file system lies on LVM: cloud-init does not grow it when the new disk is larger');
    return plan;
  },
  async run(ctx, plan) {
    const { guest, facts } = ctx;
    requireRoom(plan.set, await freeNow(ctx));
    if (plan.set.packages.length > 0) {
      ctx.progress({ text: `installing ${plan.set.packages.length} packages` });
      await familyOf(facts.os).installPackages(guest, plan.set, ctx.log, ctx.signal);
      recordPackages(ctx, plan.set);
    }
    const { blockers, warnings } = await findBlockers(guest);
    for (const blocker of blockers) await clear(ctx, blocker);
    for (const text of warnings) ctx.warn(text);
    if (plan.hadCloudInit) await resetState(ctx);
    await applyEdits(ctx, [
      ...(await configEdit(ctx, plan.datasources)),
      ...(await agentEdits(guest, rolesOf(ctx), ctx.request.generalize)),
      ...(await clockEdits(guest, facts, ctx.platforms)),
    ]);
    await enableUnits(ctx);
    return {
      packages: plan.set.packages.map(({ name, version, requested, replaces }) => ({
        name,
        version,
        requested,
        ...(replaces === undefined ? {} : { replaces }),
      })),
      datasources: plan.datasources,
      config: CONFIG_PATH,
      cleared: blockers.map((b) => b.path),
    };
  },
};
