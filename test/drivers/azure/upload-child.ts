/** One upload in a process of its own, to be killed. Options, artifact, mark and state file come as JSON by stdin. */
import { text } from 'node:stream/consumers';
import { azure } from '../../../drivers/azure/index.ts';
import { makeAzureUploader } from '../../../drivers/azure/uploader.ts';
import { uploadContext } from '../../support/upload-context.ts';

const given = JSON.parse(await text(process.stdin));
const ctx = uploadContext(given.tmp, azure, given.options, [given.artifact], {
  mark: given.mark,
  stateFile: given.stateFile,
});
const uploader = makeAzureUploader(5);
const plan = await uploader.plan(ctx);
const image = await uploader.upload(ctx, plan);
process.stdout.write(JSON.stringify(image));
