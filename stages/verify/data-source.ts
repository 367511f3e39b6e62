/** Where the machine under verification gets its data: from us, or through us from the real store. */
import type { Provision } from '../../core/contract.ts';
import { relayedProvision, relayStore, upstreamOf } from './relay-store.ts';
import type { VerifyRequest } from './request.ts';
import { serveStore } from './store-server.ts';

/** Something that answers at the store's address inside the machine. */
export interface DataSource {
  /** What the machine is told. */
  document: Provision;
  /** Bytes of content sent so far. */
  sentBytes(): number;
  close(): Promise<void>;
}

/** Listens for `host`, the address the guest knows, on the unix socket that QEMU joins the machine to. Throws CONFIG for a document that cannot be relayed. */
export async function openDataSource(
  request: Pick<VerifyRequest, 'store' | 'dataSets' | 'provision' | 'relay'>,
  socketPath: string,
  host: string,
): Promise<DataSource> {
  const address = `http://${host}`;
  const { provision } = request;
  if (provision !== undefined && Object.keys(provision.data).length > 0) {
    const upstream = request.relay?.upstream ?? upstreamOf(provision);
    const { document, allowed } = relayedProvision(provision, upstream, address);
    const relay = await relayStore({ upstream, allowed, ca: request.relay?.ca, socketPath });
    return { document, sentBytes: relay.sentBytes, close: relay.close };
  }
  const ids = (request.dataSets ?? []).map((d) => d.id);
  const server = await serveStore(request.store, ids, socketPath);
  const data = Object.fromEntries(ids.map((id) => [id, { url: `${address}/${server.prefix}/${id}/` }]));
  return { document: { version: 1, data }, sentBytes: server.sentBytes, close: server.close };
}
