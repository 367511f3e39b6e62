/** A real PostgreSQL for one test file: its own data folder, an unprivileged user, a free port of the loopback. */
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as net from 'node:net';
import * as os from 'node:os';
import * as path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { run } from '../../core/command.ts';
import { type Background, startBackground } from '../../tools/background.ts';

/** Where Debian puts the programs of each version; they are on nobody's PATH. */
const DEBIAN = '/usr/lib/postgresql';
const START_SECONDS = 30;

/** A running server. */
export interface Postgres {
  /** `postgres://…` of an empty database, password included. */
  url: string;
  port: number;
  user: string;
  password: string;
  /** Makes one more empty database. */
  database(name: string): Promise<string>;
  /** What psql prints for a statement, asked independently of our client. */
  psql(sql: string, database?: string): Promise<string>;
  /** Ends the server and removes its folder. */
  stop(): Promise<void>;
}

/** Folder of the newest installed version's programs; undefined, with the reason on stderr, when there is none. */
export async function findPostgres(): Promise<string | undefined> {
  const versions = await fs.readdir(DEBIAN).catch(() => []);
  for (const version of versions.sort((a, b) => Number(b) - Number(a))) {
    const bin = path.join(DEBIAN, version, 'bin');
    if ((await fs.stat(path.join(bin, 'initdb')).catch(() => undefined)) !== undefined) return bin;
  }
  process.stderr.write('not installed: postgresql-15\n');
  return undefined;
}

async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as net.AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** The server refuses to run as root; the package brings a user for it. */
async function unprivileged(dir: string): Promise<string[]> {
  if (process.getuid?.() !== 0) return [];
  const entry = (await fs.readFile('/etc/passwd', 'utf8')).match(/^postgres:[^:]*:(\d+):(\d+):/m);
  const [, uid = '65534', gid = '65534'] = entry ?? [];
  await fs.chown(dir, Number(uid), Number(gid));
  return ['setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--clear-groups', '--'];
}

/** Starts one; returns when it answers. */
export async function startPostgres(
  bin: string,
  options: { settings?: Readonly<Record<string, string>> } = {},
): Promise<Postgres> {
  const dir = await fs.mkdtemp(path.join(os.tmpdir(), 'port-image-postgres-'));
  const as = await unprivileged(dir);
  const password = randomBytes(12).toString('hex');
  const passwordFile = path.join(dir, 'password');
  await fs.writeFile(passwordFile, password, { mode: 0o644 });
  const data = path.join(dir, 'data');
  const [program = '', ...rest] = [...as, path.join(bin, 'initdb')];
  await run(program, [
    ...rest,
    ...[
      '-D',
      data,
      '-U',
      'fleet',
      '-A',
      'scram-sha-256',
      `--pwfile=${passwordFile}`,
      '-E',
      'UTF8',
      '--no-sync',
    ],
    '--locale=C.UTF-8',
  ]);
  await fs.rm(passwordFile);
  const port = await freePort();
  const settings: Record<string, string> = {
    listen_addresses: '127.0.0.1',
    unix_socket_directories: dir,
    // the data is thrown away; durability would only cost time
    fsync: 'off',
    synchronous_commit: 'off',
    full_page_writes: 'off',
    ...options.settings,
  };
  const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
  // Changing the user clears the wish to die with the parent, so it is said again.
  const wish = ['setpriv', '--pdeathsig', 'SIGKILL', '--'];
  const [first = '', ...more] = [
    ...as,
    ...wish,
    ...[path.join(bin, 'postgres'), '-D', data, '-p', String(port), ...flags],
  ];
  const server: Background = startBackground(first, more);
  const psql = async (sql: string, database = 'fleet'): Promise<string> => {
    const { stdout } = await run(
      path.join(bin, 'psql'),
      [
        '-h',
        '127.0.0.1',
        '-p',
        String(port),
        '-U',
        'fleet',
        '-d',
        database,
        '-v',
        'ON_ERROR_STOP=1',
        '-Atqc',
        sql,
      ],
      { env: { PGPASSWORD: password } },
    );
    return stdout.trim();
  };
  const stop = async (): Promise<void> => {
    // SIGINT: without waiting for clients
    if (server.pid !== undefined) process.kill(server.pid, 'SIGINT');
    await server.exited;
    await fs.rm(dir, { recursive: true, force: true });
  };
  const url = (database: string) => `postgres://fleet:${password}@127.0.0.1:${port}/${database}`;
  const database = async (name: string): Promise<string> => {
    await psql(`CREATE DATABASE "${name}"`, 'postgres');
    return url(name);
  };
  try {
    for (const until = Date.now() + START_SECONDS * 1000; ; ) {
      const answered = await psql('SELECT 1', 'postgres').catch(() => undefined);
      if (answered === '1') break;
      const ended = await Promise.race([server.exited, setTimeout(100, undefined)]);
      if (ended !== undefined) throw new Error(`postgres ended: ${ended.stderr}`);
      if (Date.now() > until) throw new Error('postgres does not answer');
    }
    await database('fleet');
  } catch (error) {
    await stop();
    throw error;
  }
  return { url: url('fleet'), port, user: 'fleet', password, database, psql, stop };
}
