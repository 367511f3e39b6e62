/** Names and passwords for web servers from ~/.netrc (format: netrc of ftp(1) and curl). */
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { PortError } from '../../core/errors.ts';

/** A login. */
export interface Login {
  user: string;
  password: string;
}

const LIMIT_BYTES = 64 * 1024;

/** The login for a host, or that of `default`; with `user` only that user's. Macros end the reading: they hold free text. */
export function loginIn(text: string, host: string, user: string | undefined): Login | undefined {
  const words = (text.replace(/^\s*#.*$/gm, '').match(/"(?:[^"\\]|\\.)*"|\S+/g) ?? []).map((word) =>
    word.startsWith('"') && word.length > 1 ? word.slice(1, -1).replace(/\\(.)/g, '$1') : word,
  );
  const entries: { host: string | undefined; user?: string; password?: string }[] = [];
  for (let at = 0; at < words.length; at++) {
    const entry = entries.at(-1);
    const word = words[at];
    if (word === 'macdef') break;
    if (word === 'default') entries.push({ host: undefined });
    else if (word === 'machine') entries.push({ host: words[++at]?.toLowerCase() ?? '' });
    else if (word === 'login' && entry) entry.user = words[++at] ?? '';
    else if (word === 'password' && entry) entry.password = words[++at] ?? '';
    else if (word === 'account') at++;
  }
  const fits = entries.find(
    (one) => (one.host === undefined || one.host === host) && (user === undefined || one.user === user),
  );
  return fits?.password === undefined ? undefined : { user: fits.user ?? '', password: fits.password };
}

/** Looks into the file that NETRC names, or ~/.netrc. Throws CONFIG when it is there and cannot be read. */
export async function netrcLogin(
  host: string,
  user: string | undefined,
  env: NodeJS.ProcessEnv = process.env,
): Promise<{ login: Login; isOpenToOthers: boolean } | undefined> {
  const file = env.NETRC ?? path.join(env.HOME ?? os.homedir(), '.netrc');
  try {
    const stat = await fs.stat(file);
    if (!stat.isFile() || stat.size > LIMIT_BYTES) {
      throw new PortError('CONFIG', 'the netrc file is no file, or longer than 64 KiB');
    }
    const login = loginIn(await fs.readFile(file, 'utf8'), host, user);
    return login === undefined ? undefined : { login, isOpenToOthers: (stat.mode & 0o077) !== 0 };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    if (error instanceof PortError) throw error;
    throw new PortError('CONFIG', 'the netrc file cannot be read', { cause: error });
  }
}
