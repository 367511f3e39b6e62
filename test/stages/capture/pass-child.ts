/** Run by a test, to be killed: makes one pass over a file. Arguments: the file, the folder of the copy, its size. */
import { runPass } from '../../../stages/capture/pass.ts';
import { openDiskCopy } from '../../../tools/disk-copy/index.ts';
import { openFileSource } from '../../../tools/disk-sources/file.ts';

const [file = '', dir = '', size = ''] = process.argv.slice(2);
const sizeBytes = Number(size);
const copy = await openDiskCopy(dir, 'sda', { sizeBytes, sourceId: file });
const result = await runPass({
  open: () => openFileSource(file),
  copy,
  allocation: async () => ({ ranges: [{ startBytes: 0, lengthBytes: sizeBytes }] }),
  pass: 1,
  mode: 'resume',
  limitBytesPerSecond: 250 * 1024 * 1024,
});
await copy.close();
process.stdout.write(JSON.stringify({ ...result, peakBytes: process.resourceUsage().maxRSS * 1024 }));
