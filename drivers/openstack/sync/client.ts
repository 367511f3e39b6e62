/** The login of one place of a sync: made when it is first needed, with every request counted. */
import { loadCloud } from '../../../tools/openstack/config.ts';
import { GlanceApi } from '../../../tools/openstack/glance.ts';
import type { GlanceImage } from '../../../tools/openstack/glance-types.ts';
import { CloudSession } from '../../../tools/openstack/session.ts';
import { SwiftApi } from '../../../tools/openstack/swift.ts';

/** One login. */
export class SyncCloud {
  readonly session: CloudSession;
  readonly glance: GlanceApi;
  readonly swift: SwiftApi;

  private constructor(session: CloudSession) {
    this.session = session;
    // The catalog's URL is believed: one request less in each of many nights.
    this.glance = GlanceApi.known(session);
    this.swift = new SwiftApi(session);
  }

  /** Throws CONFIG, CLOUD_LOGIN, CLOUD. */
  static async open(cloud: string, signal: AbortSignal): Promise<SyncCloud> {
    return new SyncCloud(await CloudSession.open(await loadCloud(cloud), { signal }));
  }

  /** Requests sent so far. */
  get calls(): number {
    return this.session.http.requests;
  }

  /** The cloud's own clock: of two hosts one may be wrong, and takes the other's runs for dead. */
  now(): Date {
    return new Date(Date.now() + this.session.http.clockAheadMs);
  }

  /** All images that fit, hidden ones too where `hidden` says so: Glance lists either those or the others. */
  async images(
    filters: Readonly<Record<string, string>>,
    options: { hidden: boolean; signal: AbortSignal },
  ): Promise<GlanceImage[]> {
    const { hidden, signal } = options;
    const found: GlanceImage[] = [];
    for await (const image of this.glance.list(filters, { signal })) found.push(image);
    if (!hidden) return found;
    // A service that does not know the filter lists the same ones again.
    const seen = new Set(found.map((image) => image.id));
    for await (const image of this.glance.list({ ...filters, os_hidden: 'true' }, { signal }))
      if (!seen.has(image.id)) found.push(image);
    return found;
  }

  async close(): Promise<void> {
    await this.session.close();
  }
}
