/** Reading an object to its end over connections that break: the next request goes on where the last one stopped. */
import { PortError } from '../../core/errors.ts';
import { pause } from '../../core/pause.ts';
import { printable } from '../../core/text.ts';
import { HttpError, type HttpResponse } from './http.ts';
import { giveUp } from './swift-object.ts';

/** Attempts without a single new byte after which it is given up. */
const FRUITLESS_ATTEMPTS = 5;
const PAUSE_MS = 300;

/** What to read. */
export interface ReadOptions {
  offsetBytes?: number;
  lengthBytes?: number;
  signal?: AbortSignal | undefined;
  what: string;
  name: string;
}

/**
 * Starts the read, so that a missing object fails here. `get` sends one GET with the headers given. The rest comes as chunks;
 * they throw STORE_MISMATCH when the object changes meanwhile, CLOUD (temporary) when nothing moves any more.
 */
export async function readResuming(
  get: (headers: Record<string, string>) => Promise<HttpResponse>,
  options: ReadOptions,
): Promise<AsyncIterable<Buffer>> {
  const start = options.offsetBytes ?? 0;
  const { lengthBytes, signal, what, name } = options;
  const range = (at: number): Record<string, string> => {
    const end = lengthBytes === undefined ? '' : String(start + lengthBytes - 1);
    return at === 0 && end === '' ? {} : { range: `bytes=${at}-${end}` };
  };
  if (lengthBytes === 0) return none();
  const first = await get(range(start));
  if (first.status === 404) {
    await first.drain();
    throw new PortError('STORE', `${printable(name)} is not in the store`);
  }
  if (first.status === 416) {
    await first.drain();
    return none();
  }
  checkRange(first, start);
  const length = first.headers['content-length'];
  const totalBytes = length === undefined ? undefined : Number(length);
  const { etag } = first.headers;

  async function* chunks(): AsyncIterable<Buffer> {
    let answer: HttpResponse | undefined = first;
    let got = 0;
    let fruitless = 0;
    try {
      for (;;) {
        const before = got;
        let cause: unknown;
        try {
          answer ??= await again(start + got);
          for await (const chunk of answer.body) {
            got += (chunk as Buffer).length;
            yield chunk as Buffer;
          }
          if (totalBytes === undefined || got === totalBytes) return;
          if (got > totalBytes)
            throw new PortError('STORE_MISMATCH', `${what}: more bytes came than announced`);
        } catch (error) {
          if (error instanceof PortError && !error.temporary) throw error;
          cause = error;
        }
        giveUp(answer);
        answer = undefined;
        if (signal?.aborted) throw new PortError('INTERRUPTED', 'interrupted', { cause });
        fruitless = got > before ? 0 : fruitless + 1;
        if (fruitless > FRUITLESS_ATTEMPTS) {
          if (cause instanceof PortError) throw cause;
          const options = { status: 0, temporary: true, cause };
          throw new HttpError(
            'CLOUD',
            `${what}: the connection breaks after ${got} bytes each time`,
            options,
          );
        }
        await pause(PAUSE_MS * (fruitless + 1), signal);
      }
    } finally {
      giveUp(answer);
    }
  }

  async function again(at: number): Promise<HttpResponse> {
    const answer = await get({ ...range(at), ...(etag === undefined ? {} : { 'if-match': etag }) });
    if (answer.status === 404 || answer.status === 412 || answer.status === 416) {
      await answer.drain();
      throw new PortError('STORE_MISMATCH', `${printable(name)} was changed or removed while it was read`);
    }
    checkRange(answer, at);
    return answer;
  }

  return chunks();
}

async function* none(): AsyncIterable<Buffer> {}

/** A server that ignores Range would have its first bytes taken for others. */
function checkRange(answer: HttpResponse, start: number): void {
  if (start === 0 && answer.status === 200) return;
  const from = /^bytes (\d+)-/.exec(answer.headers['content-range'] ?? '')?.[1];
  if (answer.status === 206 && Number(from) === start) return;
  giveUp(answer);
  throw new PortError('STORE', 'the store does not give parts of an object');
}
