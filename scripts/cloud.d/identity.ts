/** The few Keystone calls that make projects, users and the catalog. */
import { ask } from './http.ts';

interface Named {
  id: string;
  name: string;
}

/** Keystone's administrator at work. */
export class Identity {
  readonly #url: string;
  /** What X-Auth-Token takes. */
  readonly token: string;

  private constructor(url: string, token: string) {
    this.#url = url;
    this.token = token;
  }

  /** Logs in with a password; `url` ends in /v3. Throws with Keystone's message when refused. */
  static async login(url: string, user: string, password: string, project: string): Promise<Identity> {
    const domain = { id: 'default' };
    const answer = await ask('POST', `${url}/auth/tokens`, {
      body: {
        auth: {
          identity: { methods: ['password'], password: { user: { name: user, domain, password } } },
          scope: { project: { name: project, domain } },
        },
      },
    });
    const token = answer.headers['x-subject-token'];
    if (answer.status !== 201 || typeof token !== 'string')
      throw new Error(`Keystone refused ${user}: ${answer.status} ${answer.text.slice(0, 300)}`);
    return new Identity(url, token);
  }

  /** One call below /v3; the parsed answer, undefined when it has no body. Throws on any error status. */
  async call<T = unknown>(method: string, path: string, body?: unknown): Promise<T> {
    const answer = await ask(method, this.#url + path, { headers: { 'x-auth-token': this.token }, body });
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

  /** Registers a service's URL for the three interfaces of a region, or changes it. */
  async endpoint(serviceId: string, region: string, url: string): Promise<void> {
    const list = await this.call<{ endpoints: { id: string; interface: string; url: string }[] }>(
      'GET',
      `/endpoints?service_id=${serviceId}&region_id=${region}`,
    );
    for (const kind of ['public', 'internal', 'admin']) {
      const known = list.endpoints.find((one) => one.interface === kind);
      const endpoint = { service_id: serviceId, region_id: region, interface: kind, url };
      if (known === undefined) await this.call('POST', '/endpoints', { endpoint });
      else if (known.url !== url) await this.call('PATCH', `/endpoints/${known.id}`, { endpoint });
    }
  }
}
