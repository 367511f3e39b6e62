/** Forgets what belongs to the one machine the server ran on, and nothing else. */
import * as path from 'node:path';
import * as z from 'zod';
import { driversOf } from '../../core/contract.ts';
import { writeJson } from '../../core/files.ts';
import type { Stage, StageContext } from '../../core/stage.ts';
import { applyEdits, recordEdits } from '../../families/edits.ts';
import type { FileEdit } from '../../families/family.ts';
import { updateContract } from '../../tools/contract-writer.ts';
import { findSecrets } from './secrets.ts';
import { relabelEdits } from './selinux.ts';

/** What the stage intends. Files named here are removed without keeping their content anywhere. */
export interface SealPlan {
  edits: FileEdit[];
  remove: { path: string; why: string }[];
}

/** What the stage leaves in the journal. */
export interface SealResult {
  removed: string[];
  /** Paths of files that hold secrets and stay in the image; never their content. */
  secrets: string[];
}

const LEASES = 'address lease of the old network';
const SEED = 'random seed: two machines must never start from the same';

/** Globs of files to remove, with the reason. */
const REMOVE: readonly { glob: string; why: string }[] = [
  { glob: '/var/lib/dhcp/*.leases*', why: LEASES },
  { glob: '/var/lib/dhcp3/*.leases*', why: LEASES },
  { glob: '/var/lib/dhclient/*.lease*', why: LEASES },
  { glob: '/var/lib/dhcpcd/*.lease*', why: LEASES },
  { glob: '/var/lib/dhcpcd5/*.lease*', why: LEASES },
  { glob: '/var/lib/NetworkManager/*.lease', why: LEASES },
  { glob: '/var/lib/NetworkManager/timestamps', why: 'memory of the old network' },
  { glob: '/var/lib/NetworkManager/seen-bssids', why: 'memory of the old network' },
  { glob: '/var/lib/NetworkManager/secret_key', why: 'key of the old machine for its addresses; made anew' },
  { glob: '/var/lib/systemd/network/*', why: LEASES },
  { glob: '/var/lib/wicked/lease*', why: LEASES },
  { glob: '/var/lib/systemd/random-seed', why: SEED },
  { glob: '/var/lib/urandom/random-seed', why: SEED },
  { glob: '/var/lib/random-seed', why: SEED },
  { glob: '/var/lib/misc/random-seed', why: SEED },
  { glob: '/var/lib/systemd/credential.secret', why: 'credential key of the old machine; made anew' },
  { glob: '/boot/loader/random-seed', why: SEED },
  { glob: '/boot/efi/loader/random-seed', why: SEED },
  { glob: '/etc/udev/rules.d/70-persistent-cd.rules', why: 'ties drive names to the old hardware' },
  { glob: '/etc/udev/rules.d/75-cd-aliases-generator.rules', why: 'ties drive names to the old hardware' },
];

/** What `--generalize` removes as well: the identity of the server itself. */
const GENERALIZE: readonly { glob: string; why: string }[] = [
  { glob: '/etc/ssh/ssh_host_*_key', why: 'host key; a template makes new ones at first boot' },
  { glob: '/etc/ssh/ssh_host_*_key.pub', why: 'host key; a template makes new ones at first boot' },
  {
    glob: '/root/.ssh/authorized_keys',
    why: 'login of the old server; a template gets its keys from the cloud',
  },
  {
    glob: '/home/*/.ssh/authorized_keys',
    why: 'login of the old server; a template gets its keys from the cloud',
  },
];

async function toRemove(ctx: StageContext): Promise<{ path: string; why: string }[]> {
  const rules = ctx.request.generalize ? [...REMOVE, ...GENERALIZE] : REMOVE;
  const found: { path: string; why: string }[] = [];
  for (const { glob, why } of rules) {
    for (const path of await ctx.guest.glob(glob)) {
      // The glob of the appliance ends folders with a slash.
      if (!path.endsWith('/') && (await ctx.guest.kind(path)) === 'file') found.push({ path, why });
    }
  }
  if (ctx.request.generalize) {
    for (const user of ctx.facts.users) {
      const path = `${user.home}/.ssh/authorized_keys`;
      if (
        user.authorizedKeys > 0 &&
        !found.some((f) => f.path === path) &&
        (await ctx.guest.kind(path)) === 'file'
      ) {
        found.push({ path, why: 'login of the old server; a template gets its keys from the cloud' });
      }
    }
  }
  return found;
}

/**
 * `/etc/machine-id` must be there and empty: systemd then makes a new one and takes it as a first boot only where it
 * should. D-Bus's own copy would disagree with it.
 */
async function identityEdits(ctx: StageContext): Promise<FileEdit[]> {
  const edits: FileEdit[] = [];
  const id = await ctx.guest.readText('/etc/machine-id');
  if ((id === undefined && ctx.facts.os.init === 'systemd') || (id !== undefined && id !== '')) {
    edits.push({
      path: '/etc/machine-id',
      before: id,
      after: '',
      why: 'each machine has its own; made at the first boot',
      mode: 0o444,
    });
  }
  if ((await ctx.guest.kind('/var/lib/dbus/machine-id')) === 'file') {
    const before = await ctx.guest.readText('/var/lib/dbus/machine-id');
    edits.push({
      path: '/var/lib/dbus/machine-id',
      before,
      after: undefined,
      why: 'copy of the old machine-id',
    });
  }
  return edits;
}

/** The contract names the drivers of the initramfs as rebuilt; the operator gets a copy beside the image. */
async function completeContract(ctx: StageContext): Promise<void> {
  const rebuilt =
    ctx.result<{ rebuilt: { version: string; drivers: string[] }[] }>('guest-drivers')?.rebuilt ?? [];
  const kernels = ctx.facts.kernels.map((kernel) => {
    const now = rebuilt.find((r) => r.version === kernel.version);
    return now === undefined ? kernel : { ...kernel, initramfsModules: now.drivers };
  });
  const drivers = driversOf({ ...ctx.facts, kernels }, ctx.platforms);
  const contract = await updateContract(ctx.guest, (c) => ({ ...c, facts: { ...c.facts, drivers } }));
  await writeJson(path.join(ctx.paths.data, 'contract.json'), contract);
}

/** The stage. */
export const stage: Stage<SealPlan, SealResult> = {
  name: 'seal',
  summary: 'machine-id, leases and random seeds of the old machine; names the secrets that stay',
  needs: ['inspect', 'strip'],
  inGuest: true,
  Options: z.object({ generalize: z.boolean().default(false) }),

  async plan(ctx) {
    const edits = [...(await identityEdits(ctx)), ...(await relabelEdits(ctx.guest))];
    const remove = await toRemove(ctx);
    recordEdits(ctx, edits);
    for (const { path, why } of remove) ctx.change({ path, action: 'remove', why });
    return { edits, remove };
  },

  async run(ctx, _plan) {
    // Looked up again: stages before this one may have run programs that left seeds or leases.
    const edits = [...(await identityEdits(ctx)), ...(await relabelEdits(ctx.guest))];
    const remove = await toRemove(ctx);
    await applyEdits(ctx, edits);
    for (const { path, why } of remove) {
      ctx.signal.throwIfAborted();
      await ctx.guest.remove(path);
      ctx.change({ path, action: 'remove', why });
    }
    if (
      (await ctx.guest.kind('/var/lib/dbus')) === 'dir' &&
      (await ctx.guest.kind('/var/lib/dbus/machine-id')) === 'missing'
    ) {
      await ctx.guest.symlink('/etc/machine-id', '/var/lib/dbus/machine-id');
    }
    await completeContract(ctx);
    const secrets = await findSecrets(ctx);
    if (ctx.request.generalize && secrets.length > 0) {
      ctx.warn(
        `${secrets.length} files with secrets stay in the image although it is generalized: see the report`,
      );
    }
    return {
      removed: [...edits.filter((e) => e.after === undefined), ...remove].map((e) => e.path),
      secrets,
    };
  },
};
