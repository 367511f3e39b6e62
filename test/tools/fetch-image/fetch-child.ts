/** Fetches one URL, for tests that kill it: URL, target, bytes a second. */
import { fetchImage, planFetch } from '../../../tools/fetch-image/index.ts';

const [url = '', target = '', limit = ''] = process.argv.slice(2);
const plan = await planFetch({ kind: 'http', url });
await fetchImage(plan, target, {
  limitBytesPerSecond: Number(limit),
  onProgress: (done) => process.stdout.write(`${done}\n`),
});
await plan.origin.close();
