/** The stage on the two sample servers, in a real appliance. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { describe, expect, test } from 'vitest';
import type { Facts } from '../../../core/facts.ts';
import { silentLog } from '../../../core/log.ts';
import { inspectGuest, mountGuest, summarize } from '../../../stages/inspect/index.ts';
import { launch } from '../../../tools/guestfish.ts';
import { requires } from '../../support/requires.ts';

const missing = requires('guestfish', 'qemu-img');
const build = path.resolve(import.meta.dirname, '../../../fixtures/servers/build');

/** Builds (or finds) a sample server; its facts as the recipe states them. */
function sample(name: string) {
  const disk = execFileSync(build, [name], { encoding: 'utf8' }).trim().split('\n').at(-1) ?? '';
  return { disk, expected: JSON.parse(readFileSync(path.join(path.dirname(disk), 'expect.json'), 'utf8')) };
}

async function inspect(disk: string): Promise<Facts> {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'inspect-test-'));
  const overlay = path.join(dir, 'overlay.qcow2');
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', disk, overlay]);
  const signal = new AbortController().signal;
  const env = { LIBGUESTFS_BACKEND: 'direct', LIBGUESTFS_BACKEND_SETTINGS: 'force_tcg' };
  const guest = await launch({ overlays: [overlay], tmpDir: dir, env, signal, sourceFile: async () => disk });
  try {
    const facts = await inspectGuest({
      guest,
      signal,
      log: silentLog,
      warn: () => {},
      progress: () => {},
      disks: [{ id: 'disk0', path: disk, format: 'raw', virtualBytes: 0, badRanges: [] }],
      uses: {},
      tmpDir: dir,
      root: undefined,
    });
    // What a resumed run does: the same mounts, from the facts alone.
    await guest.call('umount-all');
    await mountGuest(guest, facts);
    expect((await guest.readText('/etc/hostname'))?.trim()).toBe(facts.os.hostname);
    expect(await guest.kind('/run/port-image/inspect')).toBe('missing');
    await guest.close();
    return facts;
  } finally {
    await guest.abort();
    rmSync(dir, { recursive: true, force: true });
  }
}

describe.skipIf(missing !== undefined || !existsSync(build))('the sample servers', () => {
  test.each(['bios-lvm', 'uefi-xfs'])('%s', async (name) => {
    const { disk, expected } = sample(name);
    const facts = await inspect(disk);
    expect(facts.firmware).toBe(expected.firmware);
    expect(facts.os).toMatchObject({
      distro: expected.distro,
      family: 'debian',
      hostname: expected.hostname,
      machineId: expected.machineId,
      init: 'systemd',
      arch: 'x86_64',
    });
    expect(facts.filesystems.find((f) => f.device === facts.root)).toMatchObject({
      type: expected.rootFs,
      uuid: expected.rootUuid,
    });
    expect(facts.filesystems.every((f) => f.map !== undefined)).toBe(true);
    expect(facts.kernels.map((k) => k.version).sort()).toEqual(expected.kernels);
    expect(facts.kernels.filter((k) => k.isDefault)).toHaveLength(1);
    for (const kernel of facts.kernels) {
      expect(kernel.initramfsModules.length).toBeGreaterThan(10);
      expect(kernel.initramfsModules).not.toContain('virtio_blk');
      expect([...kernel.modules, ...kernel.builtin]).toContain('virtio_blk');
    }
    const item = facts.network.interfaces.find((i) => i.name === expected.interface);
    expect(item).toMatchObject({
      method: 'static',
      addresses: [expected.address],
      gateways: [expected.gateway],
      dns: expected.dns,
    });
    expect(item?.mac ?? null).toBe(expected.pinnedMac);
    expect(facts.network.systems).toEqual([expected.network.replace('systemd-', '')]);
    expect(facts.agents.map((a) => a.package)).toEqual(expected.sourceAgents);
    expect(facts.bootloader).toMatchObject({ kind: 'grub2', fallbackLoader: false });
    const enabled = facts.services.filter((s) => s.enabled).map((s) => s.unit);
    expect(enabled).toEqual(expect.arrayContaining(expected.services));
    for (const user of expected.users) {
      expect(facts.users.find((u) => u.name === user.name)).toMatchObject({
        ...user,
        human: true,
        authorizedKeys: 1,
      });
    }
    const app = facts.candidates.find((c) => c.path === '/srv/app');
    expect(app?.neededBy).toEqual(expect.arrayContaining(['nginx.service', 'shop-app.service']));
    expect(JSON.stringify(facts)).not.toMatch(/\$(6|y)\$/);
    expect(summarize(facts).join('\n')).toContain(expected.hostname);
  });
});
