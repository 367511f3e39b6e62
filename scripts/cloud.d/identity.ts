/** The few Keystone calls that make projects, users and the catalog. */
import { type Answer, ask } from './http.ts';

interface Named {
  id: string;
  name: string;
}

/** A user at work. Logs in again when the token has expired: clouds with tokens of seconds exist. */
export class Identity {
  readonly #url: string;
  readonly #auth: object;
  #token = '';

  private constructor(url: string, auth: object) {
    this.#url = url;
    this.#auth = auth;
  }

  /** Logs in with a password; `url` ends in /v3. Throws with Keystone's message when refused. */
  static async login(url: string, user: string, password: string, project: string): Promise<Identity> {
    const domain = { id: 'default' };
    const made = new Identity(url, {
      identity: { methods: ['password'], password: { user: { name: user, domain, password } } },
      scope: { project: { name: project, domain } },
    });
    await made.#renew();
    return made;
  }

  /** What X-Auth-Token takes: the last one issued. */
  get token(): string {
    return this.#token;
  }

  async #renew(): Promise<void> {
    const answer = await ask('POST', `${this.#url}/auth/tokens`, { body: { auth: this.#auth } });
    const token = answer.headers['x-subject-token'];
    if (answer.status !== 201 || typeof token !== 'string')
      throw new Error(`Keystone refused the login: ${answer.status} ${answer.text.slice(0, 300)}`);
    this.#token = token;
  }

  /** One request to any service. */
  async request(
    method: string,
    url: string,
    options: { headers?: Record<string, string>; body?: unknown } = {},
  ): Promise<Answer> {
    const send = () =>
      ask(method, url, { ...options, headers: { 'x-auth-token': this.#token, ...options.headers } });
    const answer = await send();
    if (answer.status !== 401) return answer;
    await this.#renew();
    return send();
  }

  /** One call below /v3; the parsed answer, undefined when it has no body. Throws on any error status. */
  async call<T = unknown>(method: string, path: string, body?: unknown): Promise<T> {
    const answer = await this.request(method, this.#url + path, { body });
    if (answer.status >= 300)
      throw new Error(`${method} ${path}: ${answer.status} ${answer.text.slice(0, 300)}`);
    return (answer.text === '' ? undefined : JSON.parse(answer.text)) as T;
  }

  /** The id of what has this name, made with `fields` when there is none. */
  async ensure(kind: string, name: string, fields: object = {}): Promise<string> {
    const list = await this.call<Record<string, Named[]>>(
      'GET',
      `/${kind}s?name=${encodeURIComponent(name)}`,
    );
    const found = list[`${kind}s`]?.find((one) => one.name === name);
    if (found !== undefined) return found.id;
    const made = await this.call<Record<string, Named>>('POST', `/${kind}s`, { [kind]: { name, ...fields } });
    const one = made[kind];
    if (one === undefined) throw new Error(`Keystone made no ${kind} ${name}`);
    return one.id;
  }

  /** Gives a role in a project. */
  async grant(projectId: string, userId: string, roleId: string): Promise<void> {
    await this.call('PUT', `/projects/${projectId}/users/${userId}/roles/${roleId}`);
  }

  /** Registers a service's URL for the three interfaces of a region, or changes it; the public one's id. */
  async endpoint(serviceId: string, region: string, url: string): Promise<string> {
    const list = await this.call<{ endpoints: { id: string; interface: string; url: string }[] }>(
      'GET',
      `/endpoints?service_id=${serviceId}&region_id=${region}`,
    );
    let publicId = '';
    for (const kind of ['internal', 'admin', 'public']) {
      const known = list.endpoints.find((one) => one.interface === kind);
      const endpoint = { service_id: serviceId, region_id: region, interface: kind, url };
      if (known === undefined) {
        const made = await this.call<{ endpoint: { id: string } }>('POST', '/endpoints', { endpoint });
        publicId = made.endpoint.id;
      } else {
        publicId = known.id;
        if (known.url !== url) await this.call('PATCH', `/endpoints/${known.id}`, { endpoint });
      }
    }
    return publicId;
  }
}
