/** The check of fixtures/servers/live/writer.pl tells a copy of one moment from a torn one. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { checkWriterCopy } from './live-server.ts';
import { requires } from './requires.ts';

const WRITER = path.resolve(import.meta.dirname, '../../fixtures/servers/live/writer.pl');
const missing = requires('perl');

test.skipIf(missing)('a copy of one moment is sound, one taken over a while is not', async () => {
  const base = await fs.mkdtemp(path.join(tmpdir(), 'live-writer-'));
  const dir = path.join(base, 'live');
  const writer = spawn('perl', [WRITER, 'run', dir, '0.001'], { stdio: 'ignore' });
  const reach = async (wanted: number) => {
    let records = 0;
    while (records < wanted) {
      await sleep(50);
      const journal = await fs.readFile(path.join(dir, 'journal'), 'utf8').catch(() => '');
      records = journal.split('\n').length - 1;
    }
    return records;
  };
  try {
    for (let wanted = 10; wanted <= 120; wanted = (await reach(wanted)) + 30) {
      await reach(wanted);
      // Stopped anywhere in a record, the files are those of one moment.
      writer.kill('SIGSTOP');
      expect(await checkWriterCopy(dir)).toMatchObject({ problems: [] });
      writer.kill('SIGCONT');
    }
    const torn = path.join(base, 'torn');
    await fs.mkdir(torn);
    const before = await reach(1);
    await fs.copyFile(path.join(dir, 'table'), path.join(torn, 'table'));
    await reach(before + 3);
    writer.kill('SIGKILL');
    await once(writer, 'exit');
    for (const name of ['journal', 'ring', 'records'])
      await fs.cp(path.join(dir, name), path.join(torn, name), { recursive: true });
    expect((await checkWriterCopy(dir)).problems).toEqual([]);
    expect((await checkWriterCopy(torn)).problems).toContainEqual(expect.stringMatching(/^table: /));

    await fs.cp(dir, torn, { recursive: true, force: true });
    const { records } = await checkWriterCopy(torn);
    await fs.truncate(path.join(torn, 'records', `${records - 1}`), 100);
    expect((await checkWriterCopy(torn)).problems).toEqual([`records/${records - 1}: not what was written`]);
    await fs.rm(path.join(torn, 'journal'));
    expect(await checkWriterCopy(torn)).toMatchObject({ records: 0 });
  } finally {
    writer.kill('SIGKILL');
    await fs.rm(base, { recursive: true, force: true });
  }
});
