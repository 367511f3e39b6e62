/**
 * Glance v2: images and what the service tells about itself. Every call renews the token and retries what may be repeated.
 * Content is in glance-content.ts, imports in glance-import.ts.
 */
import type * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import {
  GlanceImage,
  type GlanceStore,
  type GlanceTask,
  type GlanceUsage,
  ImageList,
  ImportInfo,
  MemberList,
  type NewImage,
  type PatchOperation,
  StoreInfo,
  TaskList,
  UsageInfo,
} from './glance-types.ts';
import { findGlance, glanceRoot } from './glance-version.ts';
import { HttpError, type HttpResponse } from './http.ts';
import { withRetries } from './retry.ts';
import type { CloudSession, SessionRequest } from './session.ts';

/** What a call may be given. */
export interface CallOptions {
  signal?: AbortSignal | undefined;
}

const PATCH_TYPE = 'application/openstack-images-v2.1-json-patch';
const PAGE_IMAGES = 100;
/** More pages than this are a server that repeats itself. */
const MOST_PAGES = 1000;

/** A 404 as undefined. */
const unlessMissing = (error: unknown): undefined => {
  if (error instanceof HttpError && error.status === 404) return undefined;
  throw error;
};

/** The image service of one cloud. */
export class GlanceApi {
  readonly session: CloudSession;
  /** URL of v2, with a slash at its end. */
  readonly #root: URL;
  /** Newest minor version the service lists, such as 2.15; undefined when it lists none. */
  readonly version: string | undefined;

  private constructor(session: CloudSession, root: URL, version: string | undefined) {
    this.session = session;
    this.#root = root;
    this.version = version;
  }

  /** Finds the service and its version. Throws CLOUD_REFUSED without an image service, CLOUD without v2. */
  static async open(session: CloudSession, options: CallOptions = {}): Promise<GlanceApi> {
    const { root, version } = await findGlance(session, options);
    return new GlanceApi(session, root, version);
  }

  /** The service where the catalog says it is, without asking for its versions. Throws CLOUD_REFUSED without an image service. */
  static known(session: CloudSession): GlanceApi {
    return new GlanceApi(session, glanceRoot(session), undefined);
  }

  /** A request to a path below v2. Throws as CloudSession.request. */
  async send(path: string, request: SessionRequest): Promise<HttpResponse> {
    return this.session.request(new URL(path, this.#root), {
      ...request,
      headers: { accept: 'application/json', ...request.headers },
    });
  }

  /** Reads an answer; cut or garbled ones are asked for again. */
  async #read<T>(path: string, schema: z.ZodType<T>, what: string, options: CallOptions): Promise<T> {
    return withRetries(async () => {
      const answer = await this.send(path, { method: 'GET', what, retries: 0, ...options });
      return parsedBy(schema, await answer.json(), what);
    }, options);
  }

  /** Makes an image without content. Repeating it is safe: the id is the caller's. */
  async create(image: NewImage, options: CallOptions = {}): Promise<GlanceImage> {
    const what = `creation of image ${printable(image.name)}`;
    return withRetries(async () => {
      try {
        const answer = await this.send('images', {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify(image),
          what,
          retries: 0,
          ...options,
        });
        return parsedBy(GlanceImage, await answer.json(), what);
      } catch (error) {
        // The answer to an earlier attempt was lost: the image is there.
        if (!(error instanceof HttpError) || error.status !== 409) throw error;
        const made = await this.show(image.id, options);
        if (made === undefined) throw error;
        return made;
      }
    }, options);
  }

  /** An image, or undefined. */
  async show(id: string, options: CallOptions = {}): Promise<GlanceImage | undefined> {
    return this.#read(`images/${id}`, GlanceImage, `image ${id}`, options).catch(unlessMissing);
  }

  /** Images that fit all filters, such as `name`, `owner`, `os_hidden` or an own property; page by page. */
  async *list(
    filters: Readonly<Record<string, string>>,
    options: CallOptions = {},
  ): AsyncIterable<GlanceImage> {
    const query = new URLSearchParams({ limit: String(PAGE_IMAGES), ...filters });
    for (let page = 0; page < MOST_PAGES; page++) {
      const { images, next } = await this.#read(`images?${query}`, ImageList, 'list of images', options);
      yield* images;
      const last = images.at(-1);
      if (next === undefined || last === undefined) return;
      // Only the marker is ours to use: `next` may name a host of its own.
      query.set('marker', last.id);
    }
    throw new PortError('CLOUD', 'the list of images does not end');
  }

  /** Changes an image in one request: all operations or none. */
  async patch(
    id: string,
    operations: readonly PatchOperation[],
    options: CallOptions = {},
  ): Promise<GlanceImage> {
    const what = `properties of image ${id}`;
    let attempts = 0;
    return withRetries(async () => {
      attempts++;
      try {
        const answer = await this.send(`images/${id}`, {
          method: 'PATCH',
          headers: { 'content-type': PATCH_TYPE },
          body: JSON.stringify(operations),
          what,
          retries: 0,
          ...options,
        });
        return parsedBy(GlanceImage, await answer.json(), what);
      } catch (error) {
        // When the answer to an earlier attempt was lost, a property that was to be removed is gone already.
        if (attempts < 2 || !(error instanceof HttpError) || error.status !== 409) throw error;
        const image = await this.show(id, options);
        if (image === undefined || !operations.every((o) => holds(image, o))) throw error;
        return image;
      }
    }, options);
  }

  /** Removes an image. No error when there is none. */
  async remove(id: string, options: CallOptions = {}): Promise<void> {
    const answer = await this.send(`images/${id}`, {
      method: 'DELETE',
      okStatus: [204, 200, 404],
      what: `removal of image ${id}`,
      ...options,
    });
    await answer.drain();
  }

  /** Offers a shared image to a project. No error when it is offered already. */
  async addMember(id: string, project: string, options: CallOptions = {}): Promise<void> {
    const answer = await this.send(`images/${id}/members`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ member: project }),
      okStatus: [200, 201, 409],
      retries: 5,
      what: `sharing of image ${id}`,
      ...options,
    });
    await answer.drain();
  }

  /** Takes an offer back. No error when there is none. */
  async removeMember(id: string, project: string, options: CallOptions = {}): Promise<void> {
    const answer = await this.send(`images/${id}/members/${encodeURIComponent(project)}`, {
      method: 'DELETE',
      okStatus: [200, 204, 404],
      what: `sharing of image ${id}`,
      ...options,
    });
    await answer.drain();
  }

  /** Projects a shared image is offered to. */
  async members(id: string, options: CallOptions = {}): Promise<string[]> {
    const { members } = await this.#read(`images/${id}/members`, MemberList, `members of ${id}`, options);
    return members.map((member) => member.member_id);
  }

  /** Tasks that work or worked on an image; none where the service is too old to tell. */
  async tasks(id: string, options: CallOptions = {}): Promise<GlanceTask[]> {
    const found = await this.#read(`images/${id}/tasks`, TaskList, `tasks of image ${id}`, options).catch(
      (error: unknown) => {
        if (error instanceof HttpError && error.status === 403) return undefined;
        return unlessMissing(error);
      },
    );
    return found?.tasks ?? [];
  }

  /** Ways of import the service offers. */
  async importMethods(options: CallOptions = {}): Promise<string[]> {
    const info = await this.#read('info/import', ImportInfo, 'import methods', options).catch(unlessMissing);
    return info?.['import-methods'].value ?? [];
  }

  /** Stores; undefined where the service has just one without a name. */
  async stores(options: CallOptions = {}): Promise<GlanceStore[] | undefined> {
    const info = await this.#read('info/stores', StoreInfo, 'stores', options).catch(unlessMissing);
    return info?.stores;
  }

  /** Quotas; undefined where the service keeps none. */
  async usage(options: CallOptions = {}): Promise<GlanceUsage | undefined> {
    const info = await this.#read('info/usage', UsageInfo, 'quota', options).catch((error: unknown) => {
      if (error instanceof HttpError && error.status === 403) return undefined;
      return unlessMissing(error);
    });
    return info?.usage;
  }

  /**
   * Whether the project may give its image this visibility, found without changing anything: Glance checks the role
   * when it meets the operation and saves only when all are done, and the second one cannot be.
   */
  async mayPublish(id: string, visibility: string, options: CallOptions = {}): Promise<boolean> {
    try {
      await this.patch(
        id,
        [
          { op: 'replace', path: '/visibility', value: visibility },
          { op: 'replace', path: '/port_image_no_such_property', value: '-' },
        ],
        options,
      );
    } catch (error) {
      if (error instanceof HttpError && error.status === 403) return false;
      if (error instanceof HttpError && error.status === 409) return true;
      throw error;
    }
    throw new PortError('CLOUD', 'Glance accepts a change of a property that does not exist');
  }
}

function holds(image: GlanceImage, { op, path, value }: PatchOperation): boolean {
  const key = path.slice(1);
  return op === 'remove' ? !Object.hasOwn(image, key) : image[key] === value;
}

function parsedBy<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const where = parsed.error.issues[0]?.path.join('.') ?? '';
  throw new PortError('CLOUD', `${what}: Glance answers in another form than expected (${printable(where)})`);
}
