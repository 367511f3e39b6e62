/** A login to one cloud: Keystone v3 token, requests that renew it and try again. */
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { Catalog, findEndpoint, type ServiceType } from './catalog.ts';
import type { CloudAuth, CloudConfig } from './config.ts';
import { HttpClient, HttpError, type HttpRequest, type HttpResponse } from './http.ts';
import { type RetryOptions, withRetries } from './retry.ts';

const Token = z.looseObject({
  expires_at: z.string(),
  issued_at: z.string().optional(),
  user: z.looseObject({ id: z.string(), name: z.string().optional() }),
  project: z.looseObject({ id: z.string(), name: z.string().optional() }).optional(),
  roles: z.array(z.looseObject({ name: z.string() })).default([]),
  catalog: Catalog.default([]),
});
type Token = z.infer<typeof Token>;

/** A request of a session: a request plus what may be repeated. */
export interface SessionRequest extends HttpRequest {
  /** Attempts after the first; 0 for what must not be sent twice. Default 5, 0 for POST. */
  retries?: number;
  onRetry?: RetryOptions['onRetry'];
}

/** Renewed this long before its end, so that no request starts with a token about to die. */
const RENEW_BEFORE_MS = 120_000;

function identityBody(auth: CloudAuth): unknown {
  if (auth.type === 'application_credential') {
    const { id, name, user, secret } = auth;
    const credential = id === undefined ? { name, user, secret } : { id, secret };
    return {
      auth: { identity: { methods: ['application_credential'], application_credential: credential } },
    };
  }
  const identity =
    auth.type === 'password'
      ? { methods: ['password'], password: { user: { ...auth.user, password: auth.password } } }
      : { methods: ['token'], token: { id: auth.token } };
  return { auth: { identity, ...(auth.scope === undefined ? {} : { scope: auth.scope }) } };
}

/** Keystone's v3 root, whatever form the configured URL has. */
export function keystoneRoot(authUrl: URL): URL {
  const path = authUrl.pathname.replace(/\/+$/, '').replace(/\/(v2\.0|v3)$/, '');
  return new URL(`${authUrl.origin}${path}/v3/`);
}

/** An open login. */
export class CloudSession {
  readonly config: CloudConfig;
  readonly http: HttpClient;
  readonly #now: () => number;
  readonly #signal: AbortSignal | undefined;
  #token = '';
  #info: Token;
  #renewAtMs = 0;
  #renewing: Promise<void> | undefined;

  private constructor(
    config: CloudConfig,
    http: HttpClient,
    now: () => number,
    signal: AbortSignal | undefined,
  ) {
    this.config = config;
    this.http = http;
    this.#now = now;
    this.#signal = signal;
    this.#info = { expires_at: '', user: { id: '' }, roles: [], catalog: [] };
  }

  /**
   * Logs in. Throws CONFIG, CLOUD_LOGIN, CLOUD. `signal` also ends every later request that is given none of its own;
   * `stallTimeoutMs`: a silent connection is given up after it.
   */
  static async open(
    config: CloudConfig,
    options: { signal?: AbortSignal | undefined; stallTimeoutMs?: number | undefined } = {},
  ): Promise<CloudSession> {
    const http = await HttpClient.create({
      caFile: config.caFile,
      stallTimeoutMs: options.stallTimeoutMs,
    });
    const session = new CloudSession(config, http, () => performance.now(), options.signal);
    try {
      await session.#login(options.signal);
      return session;
    } catch (error) {
      await http.close();
      throw error;
    }
  }

  get projectId(): string {
    const { project } = this.#info;
    if (project === undefined) {
      throw new PortError('CLOUD_LOGIN', `the login to ${this.config.name} is for no project`, {
        hint: 'name a project in clouds.yaml',
      });
    }
    return project.id;
  }

  get userId(): string {
    return this.#info.user.id;
  }

  /** Names of the roles in the project. */
  get roles(): string[] {
    return this.#info.roles.map((r) => r.name);
  }

  async #login(signal?: AbortSignal): Promise<void> {
    const { auth } = this.config;
    const startedMs = this.#now();
    const { response, text } = await withRetries(
      async () => {
        const url = new URL('auth/tokens', keystoneRoot(this.config.authUrl));
        const answer = await this.http.request(url, {
          method: 'POST',
          headers: { 'content-type': 'application/json', accept: 'application/json' },
          body: JSON.stringify(identityBody(auth)),
          what: 'login',
          signal,
        });
        return { response: answer, text: await answer.json() };
      },
      { signal },
    ).catch((error: unknown) => {
      if (!(error instanceof HttpError)) throw error;
      // Keystone answers 404, naming it, to the id of a deleted application credential.
      const isGone = error.status === 404 && /application[ _]credential/i.test(error.message);
      if (isGone || error.status === 401 || error.status === 403) {
        throw new PortError(
          'CLOUD_LOGIN',
          `cloud ${printable(this.config.name)} does not accept the credentials`,
          {
            hint: 'check user, password, project and domains; an expired or deleted application credential looks the same',
            cause: error,
          },
        );
      }
      if (error.status === 404) {
        throw new PortError('CONFIG', `no Keystone v3 at ${printable(this.config.authUrl.href)}`, {
          cause: error,
        });
      }
      throw error;
    });
    const token = response.headers['x-subject-token'];
    const parsed = z.looseObject({ token: Token }).safeParse(text);
    if (token === undefined || !parsed.success) {
      throw new PortError(
        'CLOUD',
        `${this.config.authUrl.host} answers the login with something else than a token`,
      );
    }
    this.#info = parsed.data.token;
    this.#token = token;
    // Our clock may be wrong, so only the life counts: end minus the server's own time of issue.
    const issuedMs =
      Date.parse(this.#info.issued_at ?? '') || Date.parse(response.headers.date ?? '') || Date.now();
    const lifeMs = Math.max(0, Date.parse(this.#info.expires_at) - issuedMs);
    this.#renewAtMs = startedMs + lifeMs - Math.min(RENEW_BEFORE_MS, lifeMs / 4);
  }

  /** Gets a new token, once however many requests ask for it. */
  async renew(signal?: AbortSignal): Promise<void> {
    if (this.config.auth.type === 'token') {
      throw new PortError(
        'CLOUD_LOGIN',
        `the token for ${printable(this.config.name)} is not valid any more`,
        {
          hint: 'a bare token cannot be renewed; use a password or an application credential for long work',
        },
      );
    }
    this.#renewing ??= this.#login(signal).finally(() => {
      this.#renewing = undefined;
    });
    await this.#renewing;
  }

  /** A valid token. Hand it on by header only. */
  async token(signal?: AbortSignal): Promise<string> {
    if (this.#now() >= this.#renewAtMs && this.config.auth.type !== 'token') await this.renew(signal);
    return this.#token;
  }

  /** URL of a service, with a slash at its end. Throws as findEndpoint. */
  endpoint(service: ServiceType): URL {
    return findEndpoint(this.#info.catalog, this.config, service, () => this.projectId);
  }

  /** A request with our token: renewed once on 401, repeated on temporary failures. Throws as HttpClient.request. */
  async request(url: URL, options: SessionRequest): Promise<HttpResponse> {
    const signal = options.signal ?? this.#signal;
    const retries = options.retries ?? (options.method === 'POST' ? 0 : 5);
    let renewed = false;
    return withRetries(
      async () => {
        const used = await this.token(signal);
        try {
          return await this.http.request(url, {
            ...options,
            signal,
            headers: { ...options.headers, 'x-auth-token': used },
          });
        } catch (error) {
          const lost =
            error instanceof HttpError && (error.status === 401 || (error.status === 0 && error.temporary));
          // A refused token may also show as a cut connection: the server closes before it read the body.
          if (!lost || renewed || this.config.auth.type === 'token') throw error;
          if (error.status === 0 && typeof options.body !== 'function') throw error;
          renewed = true;
          if (used === this.#token) await this.renew(signal);
          if (error.status !== 401) throw error;
          return await this.http.request(url, {
            ...options,
            signal,
            headers: { ...options.headers, 'x-auth-token': await this.token(signal) },
          });
        }
      },
      {
        signal,
        retries,
        onRetry: options.onRetry,
      },
    );
  }

  async close(): Promise<void> {
    await this.http.close();
  }
}
