/** Where the queue is, as a user says it, and what is said about it without its password. */
import * as fs from 'node:fs/promises';
import { PortError, type PortErrorOptions } from '../../../core/errors.ts';
import { SecretReference } from '../../../core/sync/config.ts';
import { printable } from '../../../core/text.ts';

/** A queue's address. */
export interface QueueAddress {
  /** For the client of PostgreSQL only; may hold a password. */
  url: string;
  /** For messages: user, host, port and database. */
  shown: string;
  /** The password stood in the text itself, so whoever lists processes could have read it. */
  passwordInText: boolean;
}

const HINT =
  'postgres://USER@HOST:PORT/DATABASE with the password in PGPASSWORD or PGPASSFILE, or env:NAME or file:/PATH where the whole URL is';
/** A URL of a database is short; a file that is longer is something else. */
const URL_CHARACTERS = 2000;

/**
 * Reads `postgres://…`, `env:NAME` or `file:/PATH`. A password may also come from PGPASSWORD or the file PGPASSFILE names, as for
 * psql. Throws USAGE; no message quotes the text, for it may hold a password.
 */
export async function queueAddress(
  text: string,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<QueueAddress> {
  const isReference = SecretReference.safeParse(text).success;
  const url = isReference ? (await referenced(text, environment)).trim() : text.trim();
  const where = isReference ? printable(text) : 'the address of the queue';
  if (!/^postgres(ql)?:\/\//.test(url) || url.length > URL_CHARACTERS)
    throw new PortError('USAGE', `${where} is no postgres:// URL`, { hint: HINT });
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch {
    throw new PortError('USAGE', `${where} is a postgres:// URL with a mistake`, {
      hint: `special characters of a password are written as %XX; ${HINT}`,
    });
  }
  const hasPassword = parsed.password !== '' || parsed.searchParams.has('password');
  const host = parsed.searchParams.get('host') ?? decodeURIComponent(parsed.hostname);
  const port = parsed.searchParams.get('port') ?? parsed.port;
  const user = decodeURIComponent(parsed.username);
  const shown = `postgres://${user === '' ? '' : `${user}@`}${host}${port === '' ? '' : `:${port}`}${parsed.pathname}`;
  return { url, shown: printable(shown), passwordInText: hasPassword && !isReference };
}

async function referenced(reference: string, environment: NodeJS.ProcessEnv): Promise<string> {
  const at = reference.indexOf(':');
  const name = reference.slice(at + 1);
  if (reference.startsWith('env:')) {
    const value = environment[name];
    if (value === undefined || value === '')
      throw new PortError('USAGE', `the queue is to be taken from the variable ${name}, which is not set`, {
        hint: HINT,
      });
    return value;
  }
  try {
    return await fs.readFile(name, 'utf8');
  } catch (error) {
    throw new PortError('USAGE', `the queue is to be taken from ${printable(name)}, which cannot be read`, {
      cause: error,
      hint: HINT,
    });
  }
}

/** What the server's codes mean (https://www.postgresql.org/docs/current/errcodes-appendix.html), and what to do. */
const REASONS: Readonly<Record<string, { why: string; hint: string; temporary?: boolean }>> = {
  ECONNREFUSED: {
    why: 'nobody listens there',
    hint: 'is PostgreSQL running, and listening for this host?',
    temporary: true,
  },
  ENOENT: { why: 'there is no such socket', hint: 'is PostgreSQL running?', temporary: true },
  ENOTFOUND: { why: 'there is no host of this name', hint: 'look at the host name' },
  EAI_AGAIN: { why: 'the host name cannot be looked up', hint: 'is the network there?', temporary: true },
  ETIMEDOUT: { why: 'no answer', hint: 'is a firewall between?', temporary: true },
  ECONNRESET: { why: 'the connection broke', hint: 'try again', temporary: true },
  EPIPE: { why: 'the connection broke', hint: 'try again', temporary: true },
  '28P01': { why: 'wrong password', hint: 'PGPASSWORD, PGPASSFILE, or the file or variable the URL is in' },
  '28000': { why: 'this user may not come in from here', hint: 'see pg_hba.conf of the server' },
  '3D000': { why: 'there is no such database', hint: 'make it: createdb NAME' },
  '42501': {
    why: 'the user may not do this',
    hint: 'the user must own the schema port_image, or may create it: grant create on database NAME to USER',
  },
  '53300': {
    why: 'too many connections',
    hint: 'raise max_connections of the server, or use fewer workers',
    temporary: true,
  },
  '57P01': { why: 'the server is stopping', hint: 'try again', temporary: true },
  // As administrators do before maintenance: ALTER DATABASE … ALLOW_CONNECTIONS false.
  '55000': { why: 'the database takes no connections now', hint: 'try again', temporary: true },
  '57P03': { why: 'the server is starting', hint: 'try again', temporary: true },
};

/** A failure of the queue in one line. Never quotes the URL. */
export function queueError(error: unknown, address: Pick<QueueAddress, 'shown'>, doing?: string): PortError {
  if (error instanceof PortError) return error;
  // a host of several addresses fails with one error for each
  const first = error instanceof AggregateError ? error.errors[0] : error;
  const { code, message } = (first ?? {}) as { code?: unknown; message?: unknown };
  const known = typeof code === 'string' ? REASONS[code] : undefined;
  const text = typeof message === 'string' ? message : String(first);
  const isTimeout = /timeout|terminated|Connection ended/i.test(text);
  const why = known?.why ?? printable(text.split('\n')[0] ?? '').slice(0, 200);
  const options: PortErrorOptions = { temporary: known?.temporary ?? isTimeout };
  const hint = known?.hint ?? (isTimeout ? 'is the server there, and is a firewall between?' : undefined);
  if (hint !== undefined) options.hint = hint;
  return new PortError(
    'QUEUE',
    `the queue ${address.shown}${doing === undefined ? '' : ` (${doing})`}: ${why}`,
    options,
  );
}
