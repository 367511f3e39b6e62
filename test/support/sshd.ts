/** A real sshd on the loopback with keys and configuration of its own, for the user who runs the tests. */
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import * as net from 'node:net';
import * as os from 'node:os';
import * as path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** A running sshd. */
export interface Sshd {
  port: number;
  /** ssh configuration (`ssh -F`) with the known host key; names the key file too. */
  config: string;
  /** Private key that is let in. */
  key: string;
  /** Private key that is not. */
  strangerKey: string;
  /** Known hosts file the configuration names. */
  knownHosts: string;
  /** Folder for files of the test; removed by stop. */
  folder: string;
  /** Processes of sshd that serve a connection now. */
  connections(): number[];
  stop(): Promise<void>;
}

/** What sshd prints or does besides. */
export interface SshdOptions {
  /** Lines of sshd_config. */
  settings?: readonly string[];
}

/** A port nobody listens on. */
async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as net.AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Children of a process, from /proc. */
export function children(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
      .trim()
      .split(' ')
      .filter(Boolean)
      .map(Number);
  } catch {
    return [];
  }
}

/** Starts sshd on a free port of 127.0.0.1; resolves when it answers. */
export async function startSshd(options: SshdOptions = {}): Promise<Sshd> {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'port-image-sshd-'));
  const file = (name: string) => path.join(folder, name);
  for (const name of ['host-key', 'key', 'stranger-key']) {
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', name, '-f', file(name)]);
  }
  const port = await freePort();
  writeFileSync(
    file('sshd_config'),
    [
      `Port ${port}`,
      'ListenAddress 127.0.0.1',
      `HostKey ${file('host-key')}`,
      `PidFile ${file('pid')}`,
      `AuthorizedKeysFile ${file('key.pub')}`,
      'PasswordAuthentication no',
      'KbdInteractiveAuthentication no',
      'PermitRootLogin yes',
      // the folder of the keys lies in /tmp
      'StrictModes no',
      'UsePAM no',
      ...(options.settings ?? []),
      '',
    ].join('\n'),
  );
  const hostKey = readFileSync(file('host-key.pub'), 'utf8').split(' ').slice(0, 2).join(' ');
  writeFileSync(file('known_hosts'), `[127.0.0.1]:${port} ${hostKey}\n`);
  writeFileSync(
    file('ssh_config'),
    `Host *\n  UserKnownHostsFile ${file('known_hosts')}\n  GlobalKnownHostsFile /dev/null\n  IdentityFile ${file('key')}\n  IdentitiesOnly yes\n`,
  );
  execFileSync('mkdir', ['-p', '/run/sshd']);
  const child = spawn('/usr/sbin/sshd', ['-D', '-e', '-f', file('sshd_config')], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let log = '';
  child.stderr.on('data', (text) => {
    log += String(text);
  });
  const deadline = Date.now() + 10_000;
  while (!log.includes('Server listening')) {
    if (child.exitCode !== null || Date.now() > deadline) throw new Error(`sshd did not start: ${log}`);
    await sleep(20);
  }
  return {
    port,
    config: file('ssh_config'),
    key: file('key'),
    strangerKey: file('stranger-key'),
    knownHosts: file('known_hosts'),
    folder,
    connections: () => children(child.pid ?? 0),
    async stop() {
      for (const pid of children(child.pid ?? 0)) {
        try {
          process.kill(pid);
        } catch {
          // gone already
        }
      }
      const gone = new Promise((resolve) => child.once('exit', resolve));
      if (child.exitCode === null && child.kill()) await gone;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
