/** An upload in a process of its own, for tests that kill it: `node glance-child.ts FILE` with the JSON of its input. */
import { readFileSync } from 'node:fs';
import { uploadImage } from '../../../drivers/openstack/upload/index.ts';
import { openSession, uploadInput } from './glance-support.ts';

const given = JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8')) as {
  cloudsYaml: string;
  file: string;
  request: object;
  fields: object;
};
const session = await openSession(given.cloudsYaml);
const image = { file: given.file, content: readFileSync(given.file) };
await uploadImage(session, uploadInput(image, given.request, given.fields));
await session.close();
