/** `govc`, the command line client of vSphere: how it is called and what its failures mean. */
import * as path from 'node:path';
import { lastLine, run } from '../../core/command.ts';
import { PortError } from '../../core/errors.ts';
import type { Log } from '../../core/log.ts';
import { printable } from '../../core/text.ts';

/** Where to log in. User and password are never here: they come from the environment, and go to govc by it. */
export interface GovcServer {
  /** `https://host[:port][/sdk]`, without a user. */
  url: string;
  /** PEM file of the authority that signed the server's certificate. */
  caFile?: string | undefined;
}

/** How to run one command. */
export interface GovcOptions {
  signal: AbortSignal;
  log?: Log | undefined;
  timeoutMs?: number;
  onStdout?: (text: string) => void;
}

/**
 * Environment of the operator that govc understands and that keeps the server's certificate checked: no GOVC_INSECURE, and no
 * GOVC_DEBUG, which writes passwords to disk.
 */
const PASSED = [
  'GOVC_USERNAME',
  'GOVC_PASSWORD',
  'GOVC_CERTIFICATE',
  'GOVC_PRIVATE_KEY',
  'GOVC_TLS_CA_CERTS',
  'GOVC_TLS_KNOWN_HOSTS',
  'GOVMOMI_HOME',
] as const;

/** Ten minutes: no answer of an inventory takes so long. */
const ANSWER_MS = 600_000;

function environment({ url, caFile }: GovcServer): Record<string, string> {
  const env: Record<string, string> = { GOVC_URL: url, GOVC_INSECURE: 'false' };
  for (const name of PASSED) {
    const value = process.env[name];
    if (value !== undefined) env[name] = value;
  }
  if (caFile !== undefined) env.GOVC_TLS_CA_CERTS = caFile;
  // With a password each command logs in and out; without one, a session that `govc session.login` left is used.
  env.GOVC_PERSIST_SESSION = env.GOVC_PASSWORD === undefined ? 'true' : 'false';
  return env;
}

/** What a failure of govc is, by its text: a govmomi error, or a fault of the server. */
const FAILURES: readonly [RegExp, ConstructorParameters<typeof PortError>[0], boolean, string?][] = [
  [
    /incorrect user name or password|login failure|InvalidLogin|not authenticated|NotAuthenticated/i,
    'CLOUD_LOGIN',
    false,
    'set GOVC_USERNAME and GOVC_PASSWORD, or log in with: govc session.login',
  ],
  [
    /x509|tls: /,
    'CLOUD',
    false,
    "name the authority of the server's certificate: --set vmware.caFile=FILE, or GOVC_TLS_CA_CERTS",
  ],
  [/manifest checksum .*mismatch|missing manifest entry/, 'CLOUD_MISMATCH', false],
  [/FileAlreadyExists|DuplicateName|already exists/i, 'CLOUD_CONFLICT', false],
  [/NoPermission|permission to perform/i, 'CLOUD_REFUSED', false, 'the account lacks a privilege'],
  [/InsufficientResources|NoDiskSpace|Insufficient|FileTooLarge|NotSupported/i, 'CLOUD_REFUSED', false],
  [
    /connection refused|connection reset|no such host|i\/o timeout|unexpected EOF|: EOF|50[234] /,
    'CLOUD',
    true,
  ],
  [/ not found|resolves to multiple|please specify/i, 'CONFIG', false],
];

/** Most of a fault that is looked at; a fault names itself at its start. */
const MAX_FAULT = 20_000;

/** The error a text of govc stands for: a line, or with `-json` the fault of the server as a document. */
export function govcError(command: string, stderr: string): PortError {
  const whole = stderr.slice(0, MAX_FAULT);
  const fault = /"String":\s*"((?:[^"\\]|\\.)*)"/.exec(whole)?.[1];
  const text = lastLine(fault ?? whole).replace(/^\S*govc: /, '');
  const known = FAILURES.find(([pattern]) => pattern.test(whole));
  const [, code, temporary, hint] = known ?? [undefined, 'CLOUD' as const, false];
  return new PortError(code, `vSphere, ${command}: ${text || 'no message'}`, {
    temporary,
    ...(hint === undefined ? {} : { hint }),
  });
}

/**
 * Runs one command of govc and returns its stdout. Throws CLOUD_LOGIN, CLOUD_REFUSED, CLOUD_CONFLICT, CLOUD_MISMATCH, CONFIG (a
 * name that does not exist), CLOUD, PROGRAM_MISSING, TIMEOUT, INTERRUPTED.
 */
export async function govc(
  server: GovcServer,
  command: string,
  args: readonly string[],
  options: GovcOptions,
): Promise<string> {
  const { exitCode, stdout, stderr } = await run('govc', [command, ...args], {
    env: environment(server),
    okStatus: [0, 1, 2],
    timeoutMs: options.timeoutMs ?? ANSWER_MS,
    signal: options.signal,
    ...(options.log === undefined ? {} : { log: options.log }),
    ...(options.onStdout === undefined ? {} : { onStdout: options.onStdout }),
  });
  if (exitCode !== 0) throw govcError(command, stderr);
  return stdout;
}

/** What `govc` on this machine can do. */
export interface GovcAbilities {
  version: string;
  /** `import.ovf -m`: the digests the host computed are compared with the manifest's. */
  checksums: boolean;
}

/** Oldest version whose JSON has the names of the vSphere API (lower case), as this program reads it. */
const OLDEST = [0, 31] as const;

/** Asks the program itself, no server. Throws PROGRAM_MISSING, also for one that is too old. */
export async function govcAbilities(signal: AbortSignal): Promise<GovcAbilities> {
  const ask = async (args: readonly string[]): Promise<string> => {
    // `-h` ends with status 1 or 2, by version, and prints to stdout or stderr
    const { stdout, stderr } = await run('govc', args, { okStatus: [0, 1, 2], signal });
    return stdout + stderr;
  };
  const version = /govc v?(\d+\.\d+\.\d+)/.exec(await ask(['version']))?.[1] ?? '0.0.0';
  const [major = 0, minor = 0] = version.split('.').map(Number);
  // A build of one's own says 0.0.0.
  if (version !== '0.0.0' && major === OLDEST[0] && minor < OLDEST[1]) {
    throw new PortError('PROGRAM_MISSING', `govc ${printable(version)} is too old`, {
      hint: `${OLDEST.join('.')} or newer is needed`,
    });
  }
  return { version, checksums: /^\s+-m=/m.test(await ask(['import.ovf', '-h'])) };
}

/** Name govc finds the authority's file by; a relative path would be looked for where govc runs. */
export function absoluteFile(file: string | undefined): string | undefined {
  return file === undefined ? undefined : path.resolve(file);
}
