/** Requests to a XAPI host. The session goes by cookie (xen-api, ocaml/xapi/xapi_http.ml), so it is in no address and no log. */
import { readFile } from 'node:fs/promises';
import * as http from 'node:http';
import * as https from 'node:https';
import { text } from 'node:stream/consumers';
import { PortError } from '../../core/errors.ts';

/** A host. */
export interface XapiHost {
  /** `https://host`; `http://` only for loopback. */
  url: URL;
  /** Certificates that are believed, PEM; undefined for those of the system. */
  ca: string | undefined;
}

const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;

/** Throws CONFIG for an address that is no host's, or a file of certificates that cannot be read. */
export async function xapiHost(url: string, caFile: string | undefined): Promise<XapiHost> {
  const parsed = new URL(url);
  if (parsed.protocol !== 'https:' && !LOOPBACK.test(parsed.hostname)) {
    throw new PortError('CONFIG', `xen.url: ${parsed.host} must be reached by https`);
  }
  const ca = caFile === undefined ? undefined : await readCertificates(caFile);
  return { url: parsed, ca };
}

async function readCertificates(file: string): Promise<string> {
  return readFile(file, 'utf8').catch((cause: unknown) => {
    throw new PortError('CONFIG', `xen.caFile: ${file} cannot be read`, { cause });
  });
}

/** Opens a request; the certificate is always checked, and no connection is kept. */
export function open(
  { url, ca }: XapiHost,
  path: string,
  options: { method: string; headers: http.OutgoingHttpHeaders; signal: AbortSignal },
): http.ClientRequest {
  const common = { ...options, agent: false as const };
  const target = new URL(path, url);
  return target.protocol === 'https:'
    ? https.request(target, { ...common, ...(ca === undefined ? {} : { ca }) })
    : http.request(target, common);
}

/** The response. Throws CLOUD; a fault of the connection is temporary, one of the certificate is not. */
export function responseOf(request: http.ClientRequest): Promise<http.IncomingMessage> {
  return new Promise((resolve, reject) => {
    request.once('response', resolve).once('error', (cause) => reject(connectionError(cause)));
  });
}

/** What a fault of the connection is. */
export function connectionError(cause: unknown): PortError {
  if (cause instanceof PortError) return cause;
  const { name, message, code = '' } = cause as NodeJS.ErrnoException;
  if (name === 'AbortError') return new PortError('INTERRUPTED', 'interrupted', { cause });
  const certificate = /CERT|SELF_SIGNED|UNABLE_TO|ERR_TLS/.test(code);
  return new PortError('CLOUD', `the XAPI host cannot be reached: ${message}`, {
    cause,
    temporary: !certificate,
    ...(certificate ? { hint: 'name the authority of its certificate: --set xen.caFile=FILE' } : {}),
  });
}

/** Most bytes of an answer: records of a large pool. */
const MAX_ANSWER = 64 * 1024 ** 2;

/** One JSON document sent and one received. Throws CLOUD. */
export async function postJson(
  host: XapiHost,
  path: string,
  body: unknown,
  signal: AbortSignal,
): Promise<unknown> {
  const data = Buffer.from(JSON.stringify(body));
  const request = open(host, path, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'content-length': data.length },
    signal,
  });
  const answered = responseOf(request);
  request.end(data);
  const response = await answered;
  if (response.statusCode !== 200) {
    response.destroy();
    throw new PortError('CLOUD', `the XAPI host answered with status ${response.statusCode}`, {
      temporary: (response.statusCode ?? 0) >= 500,
    });
  }
  let bytes = 0;
  response.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > MAX_ANSWER) response.destroy(new PortError('CLOUD', 'an answer of XAPI is too long'));
  });
  const answer = await text(response).catch((cause: unknown) => {
    throw connectionError(cause);
  });
  try {
    return JSON.parse(answer);
  } catch (cause) {
    throw new PortError('CLOUD', 'an answer of XAPI is not JSON', { cause });
  }
}
