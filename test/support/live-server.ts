/** A sample server that runs: booted in QEMU without KVM from a throw-away overlay, reachable over ssh on the loopback. */
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type CommandOptions, type CommandResult, run } from '../../core/command.ts';
import { type Background, startBackground } from '../../tools/background.ts';
import { JsonRequests, listenUnix } from '../../tools/line-socket.ts';
import { shortTmpdir } from '../../tools/qemu-system.ts';

const SERVERS = path.resolve(import.meta.dirname, '..', '..', 'fixtures', 'servers');
/** Where the writer works in the guest. */
export const WRITER_DIR = '/srv/app/live';
/** Under software emulation on a busy machine. */
const BOOT_LIMIT_MS = 15 * 60_000;

/** How to boot. */
export interface LiveServerOptions {
  /** Made when missing; receives disk.qcow2 (taken over when there) and known_hosts; not removed. */
  dir: string;
  /** Port of ssh on the loopback; default any free one. Give the old one to a server that comes back. */
  sshPort?: number;
  /** Virtual processors, each a host thread. */
  cpus?: number;
  /** Ends the machine. */
  signal?: AbortSignal;
}

/** A running sample server. */
export interface LiveServer {
  /** Process id of QEMU (what starts it becomes it). */
  pid: number;
  /** Port of the guest's ssh on 127.0.0.1. */
  sshPort: number;
  /** Port of the guest's page on 127.0.0.1. */
  httpPort: number;
  /** May use sudo without a password. */
  user: string;
  /** Private key that opens the user. */
  keyFile: string;
  /** The guest's host keys. */
  knownHosts: string;
  /** The disk the guest writes to, as qcow2 over the sample server's image. */
  disk: string;
  /** Options of ssh that lead into the guest: `ssh ${sshOptions} alice@127.0.0.1`. */
  sshOptions: readonly string[];
  /** Runs a shell script as root. */
  root(script: string, options?: CommandOptions): Promise<CommandResult>;
  /** Starts the program that never stops changing its files (fixtures/servers/live/writer.pl). */
  startWriter(): Promise<void>;
  /** Presses the reset button and waits until ssh answers again. */
  reset(): Promise<void>;
  /** Resolves when QEMU ended, such as after a shutdown in the guest. */
  exited: Promise<unknown>;
  /** Takes the power away. What the guest had flushed is on the disk. */
  stop(): Promise<void>;
}

/** What a test may expect of a sample server (expect.json beside its image). */
interface Expect {
  address: string;
  gateway: string;
  pinnedMac: string;
}

/** Boots `bios-lvm` and waits until ssh answers. Throws when it does not, and leaves the screen in the folder. */
export async function startLiveServer(options: LiveServerOptions): Promise<LiveServer> {
  const image = execFileSync(path.join(SERVERS, 'build'), ['bios-lvm'], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  }).trim();
  const expect = JSON.parse(
    await fs.readFile(path.join(path.dirname(image), 'expect.json'), 'utf8'),
  ) as Expect;
  const disk = path.join(options.dir, 'disk.qcow2');
  const knownHosts = path.join(options.dir, 'known_hosts');
  await fs.mkdir(options.dir, { recursive: true, mode: 0o700 });
  if (!(await fs.stat(disk).catch(() => undefined)))
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', image, '-F', 'raw', disk]);
  const sockets = await fs.mkdtemp(path.join(shortTmpdir(), 'live-server-'));
  const monitor = await listenUnix(path.join(sockets, 'qmp'));
  const machine = startBackground(
    'qemu-system-x86_64',
    [
      ...hardware(expect, options),
      ...['-drive', `if=none,id=disk,format=qcow2,cache=unsafe,discard=unmap,file=${disk}`],
      ...['-chardev', `socket,id=qmp,path=${path.join(sockets, 'qmp')}`, '-mon', 'chardev=qmp,mode=control'],
    ],
    options.signal === undefined ? {} : { signal: options.signal },
  );
  const gone = new AbortController();
  machine.exited.catch(() => undefined).finally(() => gone.abort());
  const stop = async () => {
    await machine.stop();
    monitor.close();
    await fs.rm(sockets, { recursive: true, force: true });
  };
  try {
    const qmp = new JsonRequests(await Promise.race([monitor.connected, ended(machine)]));
    await qmp.request('qmp_capabilities');
    const { sshPort, httpPort } = await forwards(qmp);
    const keyFile = path.join(path.dirname(image), 'id_ed25519');
    const sshOptions = [
      ...['-p', String(sshPort), '-i', keyFile, '-o', `UserKnownHostsFile=${knownHosts}`],
      ...['-o', 'StrictHostKeyChecking=yes', '-o', 'BatchMode=yes', '-o', 'IdentitiesOnly=yes'],
    ];
    const root = (script: string, more: CommandOptions = {}) =>
      run('ssh', ['-q', ...sshOptions, 'alice@127.0.0.1', 'sudo -n sh -s'], { input: script, ...more });
    // While a server starts, sshd answers but lets only root in (pam_nologin): status 255.
    const login = async () =>
      (await root('true', { okStatus: [0, 255], signal: gone.signal })).exitCode === 0;
    const answers = () =>
      Promise.race([ended(machine), untilAnswers(sshPort, knownHosts, login, gone.signal)]).catch(
        async (error: Error) => {
          // The server has no serial console.
          const screen = path.join(options.dir, 'screen.png');
          if (!gone.signal.aborted)
            await qmp.request('screendump', { filename: screen, format: 'png' }).catch(() => undefined);
          throw new Error(`${error.message}; its screen is in ${screen}`, { cause: error });
        },
      );
    await answers();
    return {
      pid: machine.pid ?? 0,
      sshPort,
      httpPort,
      user: 'alice',
      keyFile,
      knownHosts,
      disk,
      sshOptions,
      root,
      startWriter: async () => {
        const program = await fs.readFile(path.join(SERVERS, 'live', 'writer.pl'), 'utf8');
        await root(`cat >/srv/app/bin/live-writer <<'END-OF-WRITER'\n${program}END-OF-WRITER
          systemd-run -q --unit=live-writer perl /srv/app/bin/live-writer run ${WRITER_DIR}
          until [ -s ${WRITER_DIR}/ring ]; do sleep 0.2; done`);
      },
      reset: async () => {
        await qmp.request('system_reset');
        await answers();
      },
      exited: machine.exited,
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** The machine the server was installed on: its controller, its network card at the place that names it, its address. */
function hardware(expect: Expect, options: LiveServerOptions): string[] {
  const address = expect.address.replace(/\/.*/, '');
  const net = expect.gateway.replace(/\d+$/, '');
  const forward = (port: number, to: number) => `hostfwd=tcp:127.0.0.1:${port}-${address}:${to}`;
  return [
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-vga', 'std', '-m', '1024'],
    ...['-machine', 'q35', '-accel', 'tcg,thread=multi,tb-size=512', '-cpu', 'max,la57=off'],
    ...['-smp', String(options.cpus ?? 2), '-device', 'ide-hd,drive=disk,bus=ide.0'],
    // The third root port makes bus 3, and so the name enp3s0.
    ...[1, 2, 3].flatMap((n) => ['-device', `pcie-root-port,id=slot${n},chassis=${n}`]),
    ...['-device', `e1000e,netdev=lan,bus=slot3,mac=${expect.pinnedMac},romfile=`],
    '-netdev',
    `user,id=lan,net=${net}0/24,host=${expect.gateway},dns=${net}3,restrict=on,` +
      `${forward(options.sshPort ?? 0, 22)},${forward(0, 80)}`,
  ];
}

/** Which ports QEMU listens on. */
async function forwards(qmp: JsonRequests): Promise<{ sshPort: number; httpPort: number }> {
  const table = String(await qmp.request('human-monitor-command', { 'command-line': 'info usernet' }));
  const port = (guestPort: number) => {
    const found = new RegExp(
      `TCP\\[HOST_FORWARD\\] +\\d+ +127\\.0\\.0\\.1 +(\\d+) +\\S+ +${guestPort} `,
    ).exec(table);
    if (found === null) throw new Error(`no forward to port ${guestPort}:\n${table}`);
    return Number(found[1]);
  };
  return { sshPort: port(22), httpPort: port(80) };
}

async function ended(machine: Background): Promise<never> {
  const { stderr } = await machine.exited;
  throw new Error(`QEMU ended: ${stderr.trim()}`);
}

/** Waits for ssh, and takes the host keys at the first answer: on this loopback nobody else can give one. */
async function untilAnswers(
  port: number,
  knownHosts: string,
  login: () => Promise<boolean>,
  gone: AbortSignal,
): Promise<void> {
  const end = performance.now() + BOOT_LIMIT_MS;
  while (performance.now() < end) {
    const keys = await run('ssh-keyscan', ['-T', '10', '-t', 'ed25519', '-p', String(port), '127.0.0.1'], {
      okStatus: [0, 1],
      signal: gone,
    });
    if (keys.stdout !== '') await fs.writeFile(knownHosts, keys.stdout);
    if (keys.stdout !== '' && (await login())) return;
    await sleep(1_000, undefined, { signal: gone });
  }
  throw new Error(`no ssh within ${BOOT_LIMIT_MS / 60_000} minutes`);
}

/** What the writer's own check says of a copy of its folder (fixtures/servers/live/writer.pl). */
export interface WriterCheck {
  /** Number of the last record. */
  records: number;
  /** Empty when the copy is one of a single moment. */
  problems: string[];
}

/** Checks a copy of WRITER_DIR on this machine. */
export async function checkWriterCopy(dir: string): Promise<WriterCheck> {
  const { stdout } = await run('perl', [path.join(SERVERS, 'live', 'writer.pl'), 'check', dir], {
    okStatus: [0, 1, 2],
  });
  return JSON.parse(stdout) as WriterCheck;
}

/** `live-server.ts DIR [--writer]`: boots, prints one JSON line, and runs until it is stopped. */
async function main(dir: string | undefined, writer: boolean): Promise<void> {
  if (dir === undefined) throw new Error('no folder was named');
  const stopping = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => stopping.abort());
  const { signal } = stopping;
  const stopped = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
  try {
    const server = await startLiveServer({ dir: path.resolve(dir), signal });
    if (writer) await server.startWriter();
    process.stdout.write(`${JSON.stringify({ ...server, exited: undefined })}\n`);
    await Promise.race([stopped, server.exited]);
    await server.stop();
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

if (import.meta.main) await main(process.argv[2], process.argv.includes('--writer'));
