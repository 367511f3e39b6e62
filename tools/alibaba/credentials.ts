/** The login of Alibaba's own tools: environment, then ~/.aliyun/config.json (https://github.com/aliyun/aliyun-cli). */
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import * as path from 'node:path';
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';

/** An AccessKey pair, with the token of a role when it is one of STS. */
export interface AlibabaKey {
  id: string;
  secret: string;
  token?: string;
}

const Config = z.object({
  current: z.string().default('default'),
  profiles: z.array(
    z.object({
      name: z.string(),
      mode: z.string().default('AK'),
      access_key_id: z.string().default(''),
      access_key_secret: z.string().default(''),
      sts_token: z.string().default(''),
    }),
  ),
});

/** What a user can do when a key is missing or not accepted. */
export const LOGIN_HINT =
  'set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET, or run `aliyun configure`';

/** Reads the key, anew each time: an STS token may have been renewed. Throws CLOUD_LOGIN. */
export async function readAlibabaKey(
  profile: string | undefined,
  env: Readonly<Record<string, string | undefined>> = process.env,
): Promise<AlibabaKey> {
  const { ALIBABA_CLOUD_ACCESS_KEY_ID: id, ALIBABA_CLOUD_ACCESS_KEY_SECRET: secret } = env;
  const token = env.ALIBABA_CLOUD_SECURITY_TOKEN;
  if (profile === undefined && id && secret) return { id, secret, ...(token ? { token } : {}) };
  const file = path.join(env.HOME ?? homedir(), '.aliyun/config.json');
  const fail = (message: string, cause?: unknown) =>
    new PortError('CLOUD_LOGIN', message, { hint: LOGIN_HINT, ...(cause === undefined ? {} : { cause }) });
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    throw fail(`no key of Alibaba Cloud: cannot read ${printable(file)}`, error);
  });
  let config: z.infer<typeof Config>;
  try {
    config = Config.parse(JSON.parse(text));
  } catch {
    // no cause: it would quote the file
    throw fail(`${printable(file)} is not a configuration of aliyun`);
  }
  const name = profile ?? env.ALIBABA_CLOUD_PROFILE ?? config.current;
  const found = config.profiles.find((p) => p.name === name);
  if (found === undefined) throw fail(`${printable(file)} has no profile ${printable(name)}`);
  if (found.mode !== 'AK' && found.mode !== 'StsToken') {
    throw fail(
      `profile ${printable(name)} has mode ${printable(found.mode)}; AK and StsToken are understood`,
    );
  }
  if (found.access_key_id === '' || found.access_key_secret === '') {
    throw fail(`profile ${printable(name)} in ${printable(file)} has no key`);
  }
  return {
    id: found.access_key_id,
    secret: found.access_key_secret,
    ...(found.sts_token === '' ? {} : { token: found.sts_token }),
  };
}
