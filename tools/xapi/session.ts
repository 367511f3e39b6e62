/** A session with a XAPI host: JSON-RPC 2.0 (xen-api, doc/content/xen-api/wire-protocol.md). */
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { postJson, type XapiHost, xapiHost } from './http.ts';

/** Version of the API that is spoken: XenServer 6.0 and later, all of XCP-ng. */
const API_VERSION = '1.9';

const Answer = z.union([
  z.object({ error: z.object({ message: z.string(), data: z.unknown().optional() }) }),
  z.object({ result: z.unknown() }),
]);

/** Codes of xen-api, ocaml/xapi-consts/api_errors.ml. */
const CODES: Readonly<Record<string, ConstructorParameters<typeof PortError>[0]>> = {
  SESSION_AUTHENTICATION_FAILED: 'CLOUD_LOGIN',
  SESSION_INVALID: 'CLOUD_LOGIN',
  RBAC_PERMISSION_DENIED: 'CLOUD_REFUSED',
  SR_FULL: 'CLOUD_REFUSED',
  VDI_TOO_LARGE: 'CLOUD_REFUSED',
  LICENCE_RESTRICTION: 'CLOUD_REFUSED',
  SR_OPERATION_NOT_SUPPORTED: 'CLOUD_REFUSED',
  UUID_INVALID: 'CONFIG',
  HANDLE_INVALID: 'CONFIG',
  HOST_IS_SLAVE: 'CONFIG',
};

/** The error a failure of XAPI stands for: its code and arguments. Arguments that name a session are left out. */
export function xapiError(what: string, code: string, args: readonly string[]): PortError {
  const shown = code.startsWith('SESSION') ? [] : args.filter((a) => !a.startsWith('OpaqueRef:'));
  const text = [code, ...shown].map((t) => printable(t).slice(0, 200)).join(', ');
  const hint = {
    SESSION_AUTHENTICATION_FAILED: 'set XAPI_USERNAME and XAPI_PASSWORD',
    HOST_IS_SLAVE: `name the master of the pool: --set xen.url=https://${printable(args[0] ?? 'MASTER')}`,
  }[code];
  return new PortError(CODES[code] ?? 'CLOUD', `XAPI, ${what}: ${text}`, {
    ...(hint === undefined ? {} : { hint }),
  });
}

/** Where and how to log in; user and password come from XAPI_USERNAME and XAPI_PASSWORD. */
export interface XapiLogin {
  url: string;
  caFile?: string | undefined;
}

/** An open session. Its reference is a secret. */
export class XapiSession {
  readonly host: XapiHost;
  readonly signal: AbortSignal;
  readonly #reference: string;

  private constructor(host: XapiHost, signal: AbortSignal, reference: string) {
    this.host = host;
    this.signal = signal;
    this.#reference = reference;
  }

  /** Logs in. Throws CLOUD_LOGIN, CONFIG, CLOUD. */
  static async open({ url, caFile }: XapiLogin, signal: AbortSignal): Promise<XapiSession> {
    const { XAPI_USERNAME: user, XAPI_PASSWORD: password } = process.env;
    if (user === undefined || password === undefined) {
      throw new PortError('CLOUD_LOGIN', 'no user for the XAPI host', {
        hint: 'set XAPI_USERNAME and XAPI_PASSWORD',
      });
    }
    const host = await xapiHost(url, caFile);
    const args = [user, password, API_VERSION, 'port-image'];
    const reference = await request(host, 'session.login_with_password', args, signal);
    return new XapiSession(host, signal, z.string().parse(reference));
  }

  /** Calls a method; the session is its first argument. Throws as xapiError. */
  call<T>(schema: z.ZodType<T>, method: string, ...args: unknown[]): Promise<T> {
    return this.#call(schema, method, args, this.signal);
  }

  /** Calls a method also after the run was told to stop: for cleaning up. */
  callLast(method: string, ...args: unknown[]): Promise<unknown> {
    return this.#call(z.unknown(), method, args, AbortSignal.timeout(30_000));
  }

  async #call<T>(schema: z.ZodType<T>, method: string, args: unknown[], signal: AbortSignal): Promise<T> {
    const result = await request(this.host, method, [this.#reference, ...args], signal);
    const parsed = schema.safeParse(result);
    if (parsed.success) return parsed.data;
    throw new PortError('CLOUD', `XAPI, ${method}: an answer of another form`, { cause: parsed.error });
  }

  /** The header that carries the session. */
  cookie(): string {
    return `session_id=${this.#reference}`;
  }

  /** Logs out; a host that is gone does not matter. */
  async close(): Promise<void> {
    await this.callLast('session.logout').catch(() => {});
  }
}

async function request(
  host: XapiHost,
  method: string,
  params: readonly unknown[],
  signal: AbortSignal,
): Promise<unknown> {
  const answer = Answer.safeParse(
    await postJson(host, '/jsonrpc', { jsonrpc: '2.0', method, params, id: 1 }, signal),
  );
  if (!answer.success) throw new PortError('CLOUD', `XAPI, ${method}: no answer of JSON-RPC 2.0`);
  if ('result' in answer.data) return answer.data.result;
  const { message, data } = answer.data.error;
  throw xapiError(method, message, Array.isArray(data) ? data.map(String) : []);
}
