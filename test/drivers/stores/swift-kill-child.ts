/** Puts many objects, then a file, into a store; killed on the way by the test. Arguments: clouds.yaml, mode, file. */
import { createReadStream } from 'node:fs';
import * as fs from 'node:fs/promises';
import { SwiftStore } from '../../../drivers/stores/swift.ts';
import { loadCloud } from '../../../tools/openstack/config.ts';
import { CloudSession } from '../../../tools/openstack/session.ts';
import { SwiftApi } from '../../../tools/openstack/swift.ts';
import { CLOUD_NAME } from '../../support/cloud.ts';

const [clouds = '', mode = '', file = ''] = process.argv.slice(2);
const PART = 1 << 20;
const session = await CloudSession.open(await loadCloud(CLOUD_NAME, { OS_CLIENT_CONFIG_FILE: clouds }));
if (mode === 'file') {
  const api = new SwiftApi(session);
  await api.ensureContainer('images', 'image/1');
  const put = await api.putFile('images', 'disk.qcow2', file, { partBytes: PART, lanes: 2 });
  process.stdout.write(JSON.stringify(put));
} else {
  const store = new SwiftStore('killed', { open: async () => session, partBytes: PART });
  const { size } = await fs.stat(file);
  if (mode === 'stream') await store.put('set/big', () => createReadStream(file));
  else {
    for (let at = 0; at < size; at += PART) {
      const content = () => createReadStream(file, { start: at, end: Math.min(size, at + PART) - 1 });
      await store.put(`set/segments/${at}`, content, { maxBytes: 2 * PART });
    }
  }
}
await session.close();
