/** Options of a vSphere target. */
import * as z from 'zod';

/** `--set vmware.…` */
export const VmwareOptions = z.strictObject({
  url: z
    .url({ protocol: /^https$/ })
    .refine(
      (url) => !/^https:\/\/[^/]*@/.test(url),
      'no user or password in it: GOVC_USERNAME, GOVC_PASSWORD',
    )
    .describe(
      'https://HOST[:PORT] of the vCenter or ESXi host; user and password come from GOVC_USERNAME and GOVC_PASSWORD',
    ),
  caFile: z.string().optional().describe("PEM file of the authority that signed the server's certificate"),
  datacenter: z.string().optional().describe('needed where there are several'),
  datastore: z.string().describe('where the disks go'),
  pool: z.string().describe('resource pool or cluster, such as /DC/host/CLUSTER/Resources'),
  folder: z.string().optional().describe('inventory folder of the template, such as /DC/vm/images'),
  network: z.string().optional().describe('network of its card; the one of the same name when absent'),
  provisioning: z.enum(['thin', 'thick', 'eagerZeroedThick']).default('thin').describe('of the disks'),
  template: z.boolean().default(true).describe('false leaves a virtual machine that is off'),
  onExists: z
    .enum(['new-version', 'replace', 'fail'])
    .default('new-version')
    .describe('when the folder has one of ours of this name: rename it, remove it, or give up'),
});
/** What the upload to vSphere needs. */
export type VmwareOptions = z.infer<typeof VmwareOptions>;
