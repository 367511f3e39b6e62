import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { expect, test } from 'vitest';
import { BlockJournal, readBlockJournal, writeBlockRecord } from '../../../tools/aws/block-journal.ts';

const digest = (n: number) => `${String(n).padStart(43, 'A')}=`;

test('a journal cut within what the parent shows is none: blocks of the parent would show through', async () => {
  const dir = await fs.mkdtemp(path.join(os.tmpdir(), 'port-image-journal-'));
  try {
    const file = path.join(dir, 'x.blocks');
    const head = {
      snapshot: 'snap-0123456789abcdef0',
      sha256: 'a',
      volumeGib: 1,
      parent: 'snap-0123456789abcdef1',
    };
    const inherited = new Map(Array.from({ length: 50 }, (_, n) => [n, digest(n)] as const));
    const journal = await BlockJournal.begin(file, head, inherited);
    await journal.put(60, digest(60));
    await journal.close();
    const whole = await fs.readFile(file, 'utf8');
    expect((await readBlockJournal(file))?.inherited.size).toBe(50);
    for (const length of [whole.indexOf('\n') + 1, whole.indexOf('p30 '), whole.indexOf('p49 ') + 20]) {
      await fs.writeFile(file, whole.slice(0, length));
      expect(await readBlockJournal(file)).toBeUndefined();
    }
    // what is lost behind it is sent again
    await fs.writeFile(file, whole.slice(0, -5));
    expect((await readBlockJournal(file))?.blocks.size).toBe(0);
    const record = { ...head, blocks: new Map(), inherited, completed: true };
    await writeBlockRecord(file, record);
    expect(await readBlockJournal(file)).toMatchObject({ completed: true, inherited });
  } finally {
    await fs.rm(dir, { recursive: true, force: true });
  }
});

test('a complete journal that lost a block in its middle is not complete: it must be nobody’s parent', async () => {
  const dir = await fs.mkdtemp(path.join(os.tmpdir(), 'port-image-journal-'));
  try {
    const file = path.join(dir, 'x.blocks');
    const head = { snapshot: 'snap-0123456789abcdef0', sha256: 'a', volumeGib: 1 };
    const journal = await BlockJournal.begin(file, head, new Map());
    for (let n = 0; n < 5; n++) await journal.put(n, digest(n));
    await journal.complete(5);
    await journal.close();
    expect((await readBlockJournal(file))?.completed).toBe(true);
    const lines = (await fs.readFile(file, 'utf8')).split('\n');
    await fs.writeFile(file, lines.filter((line) => !line.startsWith('3 ')).join('\n'));
    expect(await readBlockJournal(file)).toMatchObject({ completed: false });
  } finally {
    await fs.rm(dir, { recursive: true, force: true });
  }
});
