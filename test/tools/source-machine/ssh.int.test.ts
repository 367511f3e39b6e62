import { hash, randomBytes } from 'node:crypto';
import {
  appendFileSync,
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BLOCK_BYTES, type BlockAnswer, type WantedBlock } from '../../../core/disk-source.ts';
import { PortError } from '../../../core/errors.ts';
import { type MachineOptions, type MachineTarget, openMachine } from '../../../tools/source-machine/index.ts';
import { requires } from '../../support/requires.ts';
import { children, type Sshd, startSshd } from '../../support/sshd.ts';

const missing = requires('sshd', 'ssh', 'ssh-keygen', 'python3', 'perl');
const LANGUAGES = ['python', 'perl'] as const;
const DISK_BYTES = 10 * BLOCK_BYTES + 512 * 3;

let sshd: Sshd;
let disk: string;
let content: Buffer;

function wholeBlocks(sizeBytes: number): WantedBlock[] {
  return Array.from({ length: Math.ceil(sizeBytes / BLOCK_BYTES) }, (_, index) => {
    const lengthBytes = Math.min(BLOCK_BYTES, sizeBytes - index * BLOCK_BYTES);
    return { index, lengthBytes, parts: [{ startBytes: 0, lengthBytes }] };
  });
}

/** The block as it has to come: what is not wanted as zeros. */
function canonical(block: WantedBlock): Buffer {
  const whole = Buffer.alloc(block.lengthBytes);
  for (const { startBytes, lengthBytes } of block.parts) {
    content.copy(
      whole,
      startBytes,
      block.index * BLOCK_BYTES + startBytes,
      block.index * BLOCK_BYTES + startBytes + lengthBytes,
    );
  }
  return whole;
}

function target(port = sshd.port): MachineTarget {
  return { kind: 'ssh', host: '127.0.0.1', user: undefined, port };
}

function options(more: MachineOptions = {}): MachineOptions {
  return { sshConfig: sshd.config, allowRegularFiles: true, ...more };
}

async function failure(what: Promise<unknown>): Promise<PortError> {
  const error = await what.then(
    () => undefined,
    (e: unknown) => e,
  );
  expect(error).toBeInstanceOf(PortError);
  return error as PortError;
}

/** All processes below one. */
function descendants(pid: number): number[] {
  return children(pid).flatMap((child) => [child, ...descendants(child)]);
}

beforeAll(async () => {
  if (missing) return;
  sshd = await startSshd();
  disk = path.join(sshd.folder, 'disk img, "odd"');
  const fd = openSync(disk, 'w');
  ftruncateSync(fd, DISK_BYTES);
  writeSync(fd, randomBytes(BLOCK_BYTES), 0, BLOCK_BYTES, 0);
  writeSync(fd, Buffer.alloc(BLOCK_BYTES, 'all the same '), 0, BLOCK_BYTES, 2 * BLOCK_BYTES);
  writeSync(fd, randomBytes(100_000), 0, 100_000, 5 * BLOCK_BYTES + 12_345);
  writeSync(fd, randomBytes(3 * BLOCK_BYTES), 0, 3 * BLOCK_BYTES, 6 * BLOCK_BYTES);
  writeSync(fd, Buffer.from('end'), 0, 3, DISK_BYTES - 3);
  closeSync(fd);
  content = readFileSync(disk);
});

afterAll(async () => {
  await sshd?.stop();
});

describe.skipIf(missing).each(LANGUAGES)('over ssh, the helper in %s', (language) => {
  test('blocks arrive as they are on the disk, with what travelled', async () => {
    for (const compress of ['never', 'always'] as const) {
      const machine = await openMachine(target(), options({ language, compress }));
      try {
        const source = await machine.disk(disk);
        expect(source.sizeBytes).toBe(DISK_BYTES);
        const wanted = wholeBlocks(DISK_BYTES);
        const answers: Omit<BlockAnswer, 'data'>[] = [];
        for await (const { data, ...answer } of source.readBlocks(wanted)) {
          const block = canonical(wanted[answer.index] as WantedBlock);
          expect(answer.sha256.toString('hex')).toBe(hash('sha256', block, 'hex'));
          if (answer.kind === 'data') expect(data?.equals(block)).toBe(true);
          answers.push(answer);
        }
        expect(answers.map((a) => a.index)).toEqual(wanted.map((w) => w.index));
        expect(answers.map((a) => a.kind)).toEqual([
          'data',
          'zero',
          'data',
          'zero',
          'zero',
          'data',
          'data',
          'data',
          'data',
          'zero',
          'data',
        ]);
        expect(answers[0]?.sentBytes).toBe(BLOCK_BYTES);
        expect(answers[1]?.sentBytes).toBe(0);
        if (language === 'python' && compress === 'always')
          expect(answers[2]?.wireBytes).toBeLessThan(100_000);
        else expect(answers[2]?.wireBytes).toBeGreaterThanOrEqual(BLOCK_BYTES);
      } finally {
        await machine.close();
      }
    }
  });

  test('only the wanted parts travel; what is known is not sent', async () => {
    const machine = await openMachine(target(), options({ language, compress: 'never' }));
    try {
      const source = await machine.disk(disk);
      const parts = [
        { startBytes: 512, lengthBytes: 512 },
        { startBytes: 2048, lengthBytes: 4096 },
        { startBytes: 1024 * 1024 + 512, lengthBytes: 200 * 1024 },
        { startBytes: BLOCK_BYTES - 512, lengthBytes: 512 },
      ];
      const scattered: WantedBlock = { index: 7, lengthBytes: BLOCK_BYTES, parts };
      const known = hash('sha256', canonical(scattered), 'buffer');
      const zeros = hash('sha256', Buffer.alloc(BLOCK_BYTES), 'buffer');
      const seen: unknown[] = [];
      for await (const answer of source.readBlocks([
        scattered,
        { ...scattered, known },
        { ...scattered, known: randomBytes(32) },
        { index: 1, lengthBytes: BLOCK_BYTES, parts, known: zeros },
      ])) {
        if (answer.data !== undefined) expect(answer.data.equals(canonical(scattered))).toBe(true);
        seen.push([answer.kind, answer.sentBytes]);
      }
      const sent = 512 + 4096 + 200 * 1024 + 512;
      expect(seen).toEqual([
        ['data', sent],
        ['same', 0],
        ['data', sent],
        ['same', 0],
      ]);
    } finally {
      await machine.close();
    }
  });

  test('read takes any offset and ends at the end of the disk', async () => {
    const machine = await openMachine(target(), options({ language }));
    try {
      const source = await machine.disk(disk);
      for (const [offset, length] of [
        [0, 1],
        [1000, 20_000],
        [6 * BLOCK_BYTES - 10, 2 * BLOCK_BYTES],
        [DISK_BYTES - 10, 100],
        [DISK_BYTES, 10],
      ] as const) {
        expect((await source.read(offset, length)).equals(content.subarray(offset, offset + length))).toBe(
          true,
        );
      }
    } finally {
      await machine.close();
    }
  });

  test('what is no disk, or not there, is said so; the machine stays usable', async () => {
    const machine = await openMachine(target(), options({ language, allowRegularFiles: false }));
    try {
      for (const device of [disk, '/dev/null', '/dev/not-there', sshd.folder]) {
        expect(await failure(machine.disk(device))).toMatchObject({ code: 'NOT_A_DISK', temporary: false });
      }
      expect((await machine.run('echo still here', 5_000)).output).toBe('still here\n');
    } finally {
      await machine.close();
    }
  });

  test('commands: status, output, time limit; not to be seen in the list of processes', async () => {
    const machine = await openMachine(target(), options({ language }));
    try {
      expect(await machine.run('echo out; echo err >&2; exit 7', 5_000)).toEqual({
        exitCode: 7,
        output: 'out\nerr\n',
      });
      expect(await machine.run('cat; kill -9 $$', 5_000)).toMatchObject({ exitCode: -9 });
      const seen = await machine.run(
        "x='hush-hush'; cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c hush-[h]ush",
        10_000,
      );
      expect(seen.output).toBe('0\n');
      expect(await failure(machine.run('echo begun; sleep 60', 300))).toMatchObject({
        code: 'TIMEOUT',
        hint: 'begun',
      });
      // a daemon that keeps the output open does not hold up the command that started it
      expect((await machine.run('sleep 20 & echo started', 15_000)).output).toBe('started\n');
    } finally {
      await machine.close();
    }
  });

  test('a connection that is cut is a temporary error; a new one goes on', async () => {
    const machine = await openMachine(target(), options({ language, limitBytesPerSecond: 8_000_000 }));
    const source = await machine.disk(disk);
    const got: number[] = [];
    const error = await failure(
      (async () => {
        for await (const answer of source.readBlocks(wholeBlocks(DISK_BYTES))) {
          got.push(answer.index);
          if (got.length === 2) for (const pid of sshd.connections()) process.kill(pid, 'SIGKILL');
        }
      })(),
    );
    expect(error).toMatchObject({ code: 'SOURCE_REMOTE', temporary: true });
    expect(got.length).toBeLessThan(11);
    await failure(machine.run('true', 5_000));
    expect(machine.connected()).toBe(false);
    await machine.close();

    const again = await openMachine(target(), options({ language }));
    const rest = wholeBlocks(DISK_BYTES).slice(got.length);
    for await (const answer of (await again.disk(disk)).readBlocks(rest)) got.push(answer.index);
    await again.close();
    expect(got).toEqual(wholeBlocks(DISK_BYTES).map((b) => b.index));
  });

  test('the helper takes at most 64 MiB', async () => {
    const machine = await openMachine(target(), options({ language, compress: 'always' }));
    try {
      const source = await machine.disk(disk);
      for (let round = 0; round < 4; round++) {
        for await (const answer of source.readBlocks(wholeBlocks(DISK_BYTES))) expect(answer.bad).toEqual([]);
      }
      const peaks = sshd
        .connections()
        .flatMap(descendants)
        .map((pid) => /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])
        .map(Number);
      expect(Math.max(...peaks)).toBeGreaterThan(5_000);
      expect(Math.max(...peaks)).toBeLessThan(64 * 1024);
    } finally {
      await machine.close();
    }
  });

  test('closing leaves no process behind; a signal stops', async () => {
    const abort = new AbortController();
    const machine = await openMachine(
      target(),
      options({ language, signal: abort.signal, limitBytesPerSecond: 4_000_000 }),
    );
    const source = await machine.disk(disk);
    setTimeout(() => abort.abort(), 100);
    const error = await failure(
      (async () => {
        for await (const answer of source.readBlocks(wholeBlocks(DISK_BYTES), abort.signal))
          expect(answer.bad).toEqual([]);
      })(),
    );
    expect(error.code).toBe('INTERRUPTED');
    await machine.close();
    await expect.poll(() => sshd.connections().length, { timeout: 10_000 }).toBe(0);
  });
});

describe.skipIf(missing)('logging in', () => {
  test('the inventory of this machine fits its schema and holds its disks', async () => {
    const machine = await openMachine(target(), options());
    try {
      const found = await machine.inventory();
      expect(found.hostname).toBe(os.hostname());
      expect(found.memoryBytes).toBeGreaterThan(100 * 1024 * 1024);
      expect(found.kernel).toBe(os.release());
      expect(found.interfaces.map((i) => i.name)).toContain('lo');
      expect(found.ports).toContainEqual(
        expect.objectContaining({ protocol: 'tcp', address: '127.0.0.1', port: sshd.port }),
      );
      expect(JSON.stringify(found)).not.toContain(sshd.folder);
    } finally {
      await machine.close();
    }
  });

  test('noise of banner and profile is no harm', async () => {
    const banner = path.join(os.tmpdir(), `port-image-banner-${process.pid}`);
    writeFileSync(banner, 'Permission denied (this is only a banner).\n');
    const noisy = await startSshd({
      settings: [
        `Banner ${banner}`,
        // as a profile that prints, and something that looks like our own mark
        `ForceCommand printf 'Welcome!\\n@port-image 0123456789abcdef python\\n\\0\\377'; head -c 50000 /dev/zero; eval "$SSH_ORIGINAL_COMMAND"`,
      ],
    });
    try {
      const machine = await openMachine(target(noisy.port), { sshConfig: noisy.config });
      expect((await machine.run('echo fine', 5_000)).output).toBe('fine\n');
      await machine.close();
    } finally {
      await noisy.stop();
      rmSync(banner);
    }
  });

  test('endless noise and silence are ended', async () => {
    const noisy = await startSshd({ settings: ['ForceCommand cat /dev/zero'] });
    const silent = await startSshd({ settings: ['ForceCommand sleep 60'] });
    try {
      const loud = await failure(openMachine(target(noisy.port), { sshConfig: noisy.config }));
      expect(loud.message).toContain('prints without end');
      const mute = await failure(
        openMachine(target(silent.port), { sshConfig: silent.config, openTimeoutMs: 1_000 }),
      );
      expect(mute).toMatchObject({ code: 'SOURCE_REMOTE', temporary: true });
    } finally {
      await noisy.stop();
      await silent.stop();
    }
  });

  test('each way to be refused has its own words', async () => {
    const stranger = path.join(sshd.folder, 'stranger_config');
    writeFileSync(stranger, readFileSync(sshd.config, 'utf8').replace(/IdentityFile .*/, ''));
    const wrongKey = await failure(
      openMachine(target(), { sshConfig: stranger, sshIdentity: sshd.strangerKey }),
    );
    expect(wrongKey).toMatchObject({ code: 'SOURCE_REMOTE', temporary: false });
    expect(wrongKey.message).toContain('does not accept the login');

    const nobodyKnown = path.join(sshd.folder, 'unknown_config');
    writeFileSync(
      nobodyKnown,
      readFileSync(sshd.config, 'utf8').replace(/UserKnownHostsFile .*/, 'UserKnownHostsFile /dev/null'),
    );
    const unknown = await failure(openMachine(target(), { sshConfig: nobodyKnown }));
    expect(unknown).toMatchObject({ code: 'SOURCE_REMOTE', temporary: false });
    expect(unknown.message).toContain('host key is not known');

    const other = await startSshd();
    try {
      const changed = path.join(other.folder, 'changed_config');
      const hosts = path.join(other.folder, 'changed_hosts');
      const key = readFileSync(sshd.knownHosts, 'utf8').split(' ').slice(1).join(' ');
      writeFileSync(hosts, `[127.0.0.1]:${other.port} ${key}`);
      writeFileSync(
        changed,
        readFileSync(other.config, 'utf8').replace(/UserKnownHostsFile .*/, `UserKnownHostsFile ${hosts}`),
      );
      const moved = await failure(openMachine(target(other.port), { sshConfig: changed }));
      expect(moved).toMatchObject({ code: 'SOURCE_REMOTE', temporary: false });
      expect(moved.message).toContain('not the one that is known');
    } finally {
      await other.stop();
    }
    expect(await failure(openMachine(target(other.port), options()))).toMatchObject({
      code: 'SOURCE_REMOTE',
      temporary: true,
    });

    const broken = path.join(sshd.folder, 'broken_config');
    appendFileSync(broken, 'NoSuchOption yes\n');
    expect(await failure(openMachine(target(), { sshConfig: broken }))).toMatchObject({ code: 'CONFIG' });
  });

  test.skipIf(requires('sudo', 'setpriv'))(
    'a user that is not root needs sudo without a password',
    async () => {
      const user = 'setpriv --reuid=65534 --regid=65534 --clear-groups --';
      const plain = await startSshd({ settings: [`ForceCommand ${user} sh -c "$SSH_ORIGINAL_COMMAND"`] });
      // a PATH without sudo
      const bare = await startSshd({
        settings: [
          `ForceCommand mkdir -p ${os.tmpdir()}/port-image-bare && ln -sf /usr/bin/id /usr/bin/sh ${os.tmpdir()}/port-image-bare && PATH=/usr/bin:/bin ${user} env PATH=${os.tmpdir()}/port-image-bare sh -c "$SSH_ORIGINAL_COMMAND"`,
        ],
      });
      try {
        const refused = await failure(openMachine(target(plain.port), { sshConfig: plain.config }));
        expect(refused).toMatchObject({ code: 'SOURCE_REMOTE', temporary: false });
        expect(refused.message).toContain('sudo asks for a password');
        const without = await failure(openMachine(target(bare.port), { sshConfig: bare.config }));
        expect(without).toMatchObject({ code: 'SOURCE_REMOTE', temporary: false });
        expect(without.message).toContain('there is no sudo');
      } finally {
        await plain.stop();
        await bare.stop();
        rmSync(`${os.tmpdir()}/port-image-bare`, { recursive: true, force: true });
      }
    },
  );

  test.skipIf(requires('sudo'))('through sudo all is the same', async () => {
    // a shell that is told it is not root
    const folder = mkdtempSync(path.join(os.tmpdir(), 'port-image-id-'));
    writeFileSync(path.join(folder, 'id'), '#!/bin/sh\necho 1000\n', { mode: 0o755 });
    const user = await startSshd({
      settings: [`ForceCommand PATH=${folder}:/usr/sbin:/usr/bin:/sbin:/bin sh -c "$SSH_ORIGINAL_COMMAND"`],
    });
    try {
      for (const language of LANGUAGES) {
        const machine = await openMachine(target(user.port), options({ language, sshConfig: user.config }));
        const source = await machine.disk(disk);
        for await (const answer of source.readBlocks(wholeBlocks(DISK_BYTES))) expect(answer.bad).toEqual([]);
        expect((await machine.run('test -n "$SUDO_COMMAND" && id -u', 5_000)).output).toBe('0\n');
        await machine.close();
      }
    } finally {
      await user.stop();
      rmSync(folder, { recursive: true });
    }
  });

  test('a host that looks like an option is a host', async () => {
    const hosted: MachineTarget = {
      kind: 'ssh',
      host: '-oProxyCommand=touch /tmp/never',
      user: undefined,
      port: undefined,
    };
    const error = await failure(openMachine(hosted, options()));
    expect(['SOURCE_REMOTE', 'CONFIG']).toContain(error.code);
    expect(() => readFileSync('/tmp/never')).toThrow();
  });
});
