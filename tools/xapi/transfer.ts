/** Disks to and from a XAPI host: `/import_raw_vdi` and `/export_raw_vdi` (xen-api, ocaml/xapi/import_raw_vdi.ml). */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import { pause } from '../../core/pause.ts';
import { printable } from '../../core/text.ts';
import { connectionError, open, responseOf } from './http.ts';
import { type XapiSession, xapiError } from './session.ts';

const POLL_MS = 1000;
/** A host that answers only after the body gets it after so long. */
const EARLY_MS = 5000;
/** A host that has every byte answers within it; it may still write to slow storage. */
const FINISH_MS = 60 * 60_000;

const Task = z.object({
  status: z.enum(['pending', 'success', 'failure', 'cancelling', 'cancelled']),
  error_info: z.array(z.string()).default([]),
});

/** Formats of a transfer (xen-api, ocaml/xapi/importexport.ml). */
export type TransferFormat = 'raw' | 'vhd' | 'qcow2';

/**
 * Sends a file into a VDI. The host answers 200 before it has a byte: only the task tells how it ended. Throws CLOUD,
 * CLOUD_REFUSED, INTERRUPTED.
 */
export async function importVdi(
  session: XapiSession,
  vdi: string,
  file: { path: string; bytes: number; format: TransferFormat },
  onBytes: (doneBytes: number) => void,
): Promise<void> {
  await withTask(session, 'import', async (task) => {
    const request = open(
      session.host,
      transferPath('/import_raw_vdi', { vdi, format: file.format, task_id: task }),
      {
        method: 'PUT',
        // no chunked encoding: the host cannot read it
        headers: {
          cookie: session.cookie(),
          'content-length': file.bytes,
          'content-type': 'application/octet-stream',
        },
        signal: session.signal,
      },
    );
    let done = 0;
    const count = new Transform({
      transform(chunk: Buffer, _encoding, next) {
        done += chunk.length;
        onBytes(done);
        next(null, chunk);
      },
    });
    const answered = responseOf(request);
    request.flushHeaders();
    // A redirect or refusal is read before the body is sent: it would be lost with the connection the host then closes.
    const early = await Promise.race([answered, pause(EARLY_MS, session.signal)]);
    if (early !== undefined) requireOk(early);
    const drained = answered.then(async (response) => {
      requireOk(response);
      for await (const _ of response); // the host closes when it is done
    });
    const ends = await Promise.allSettled([
      pipeline(createReadStream(file.path, { highWaterMark: 1024 ** 2 }), count, request),
      drained,
    ]);
    // What the task says is better than a connection that was closed in the middle.
    await finished(session, task, ends.find((e) => e.status === 'rejected')?.reason);
  });
}

/** sha256 of what a VDI shows, hex. Throws CLOUD, CLOUD_MISMATCH when it is not of this size. */
export async function vdiSha256(
  session: XapiSession,
  vdi: string,
  virtualBytes: number,
  onBytes: (doneBytes: number) => void,
): Promise<string> {
  return withTask(session, 'read back', async (task) => {
    const request = open(
      session.host,
      transferPath('/export_raw_vdi', { vdi, format: 'raw', task_id: task }),
      {
        method: 'GET',
        headers: { cookie: session.cookie() },
        signal: session.signal,
      },
    );
    request.end();
    const response = await responseOf(request);
    requireOk(response);
    const hash = createHash('sha256');
    let done = 0;
    try {
      for await (const chunk of response) {
        hash.update(chunk);
        done += chunk.length;
        onBytes(done);
      }
    } catch (cause) {
      throw connectionError(cause);
    }
    if (done !== virtualBytes) {
      throw new PortError(
        'CLOUD_MISMATCH',
        `the host shows ${done} bytes of the disk, it has ${virtualBytes}`,
      );
    }
    return hash.digest('hex');
  });
}

function transferPath(path: string, query: Record<string, string>): string {
  return `${path}?${new URLSearchParams(query).toString()}`;
}

function requireOk(response: IncomingMessage): void {
  const { statusCode = 0 } = response;
  if (statusCode === 200) return;
  response.destroy();
  if (statusCode >= 300 && statusCode < 400) {
    const to = /^https?:\/\/([^/?#]+)/.exec(response.headers.location ?? '')?.[1] ?? 'another host';
    throw new PortError('CLOUD_REFUSED', `only ${printable(to)} of the pool sees this storage`, {
      hint: 'name that host: --set xen.url=https://HOST, or choose shared storage',
    });
  }
  if (statusCode === 401 || statusCode === 403) {
    throw new PortError('CLOUD_REFUSED', 'the account may not move disks', {
      hint: 'it needs the role VM Admin',
    });
  }
  throw new PortError('CLOUD', `the XAPI host answered with status ${statusCode}`, {
    temporary: statusCode >= 500,
  });
}

async function withTask<T>(
  session: XapiSession,
  label: string,
  use: (task: string) => Promise<T>,
): Promise<T> {
  const task = await session.call(z.string(), 'task.create', `port-image: ${label}`, '');
  try {
    return await use(task);
  } catch (error) {
    if (session.signal.aborted) await session.callLast('task.cancel', task).catch(() => {});
    throw error;
  } finally {
    await session.callLast('task.destroy', task).catch(() => {});
  }
}

/** Waits for the end of a task. Throws what it failed with, or else `fault`. */
async function finished(session: XapiSession, task: string, fault: unknown): Promise<void> {
  const giveUp = performance.now() + (fault === undefined ? FINISH_MS : 5 * POLL_MS);
  for (;;) {
    const { status, error_info } = await session.call(Task, 'task.get_record', task);
    if (status === 'success' && fault === undefined) return;
    if (status === 'failure' || status === 'cancelled') {
      const [code = status, ...args] = error_info;
      throw xapiError('import', code, args);
    }
    if (performance.now() > giveUp) {
      if (fault !== undefined) throw connectionError(fault);
      throw new PortError('CLOUD', 'the XAPI host does not end the import');
    }
    await pause(POLL_MS, session.signal);
  }
}
