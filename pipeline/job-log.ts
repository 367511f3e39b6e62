/** The log of a job: JSON lines in `logs/port-image.jsonl`. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { FILE_MODE } from '../core/files.ts';
import { type Log, makeLog } from '../core/log.ts';

/** Opens the log of a job for appending. Lines are written at once, so a kill loses none. */
export function openJobLog(dir: string, fields: Record<string, string>): Log & { close(): void } {
  const fd = fs.openSync(path.join(dir, 'port-image.jsonl'), 'a', FILE_MODE);
  let open = true;
  const log = makeLog((level, text, more) => {
    if (open)
      fs.writeSync(
        fd,
        `${JSON.stringify({ at: new Date().toISOString(), level, text, ...fields, ...more })}\n`,
      );
  });
  return Object.assign(log, {
    close() {
      if (open) fs.closeSync(fd);
      open = false;
    },
  });
}
