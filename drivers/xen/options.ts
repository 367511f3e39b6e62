/** Options of an XCP-ng or XenServer target. */
import * as z from 'zod';

/** `--set xen.…` */
export const XenOptions = z.strictObject({
  url: z
    .url({ protocol: /^https?$/ })
    .refine(
      (url) => !/^https?:\/\/[^/]*@/.test(url),
      'no user or password in it: XAPI_USERNAME, XAPI_PASSWORD',
    )
    .describe('https://HOST of the pool master; user and password come from XAPI_USERNAME and XAPI_PASSWORD'),
  caFile: z.string().optional().describe("PEM file of the authority that signed the host's certificate"),
  sr: z.string().describe('storage repository, by UUID or name'),
  network: z.string().optional().describe('network of its card, by UUID or name; no card when absent'),
  baseTemplate: z.string().default('Other install media').describe('template the new one is cloned of'),
  template: z.boolean().default(true).describe('false leaves a virtual machine that is off'),
  readBack: z.boolean().default(true).describe('read the disk back and compare it with what was sent'),
  onExists: z
    .enum(['new-version', 'replace', 'fail'])
    .default('new-version')
    .describe('when the pool has one of ours of this name: rename it, remove it, or give up'),
});
/** What the upload to a XAPI host needs. */
export type XenOptions = z.infer<typeof XenOptions>;
