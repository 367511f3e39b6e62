/** Small JSON requests to the cloud's own services. Nothing of this is for images. */
import { readFileSync } from 'node:fs';
import * as http from 'node:http';
import * as https from 'node:https';

/** An answer with its whole (small) body. */
export interface Answer {
  status: number;
  headers: http.IncomingHttpHeaders;
  text: string;
}

/** One request; throws only when there is no answer within `timeoutMs`. */
export function ask(
  method: string,
  url: string,
  options: {
    headers?: Record<string, string>;
    body?: unknown;
    timeoutMs?: number;
    caFile?: string | undefined;
  } = {},
): Promise<Answer> {
  const body = options.body === undefined ? undefined : JSON.stringify(options.body);
  const headers = {
    ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    ...options.headers,
  };
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(options.timeoutMs ?? 30_000);
    const ca = options.caFile === undefined ? {} : { ca: readFileSync(options.caFile) };
    const { request: open } = url.startsWith('https:') ? https : http;
    const request = open(url, { method, headers, signal, agent: false, ...ca }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          text: Buffer.concat(chunks).toString(),
        }),
      );
    });
    request.on('error', reject);
    request.end(body);
  });
}
