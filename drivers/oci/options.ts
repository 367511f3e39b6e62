/** Options of an Oracle Cloud Infrastructure target. */
import * as z from 'zod';
import { Endpoint } from '../../tools/endpoint.ts';

/** `--set oci.…` */
export const OciOptions = z.strictObject({
  compartment: z
    .string()
    .regex(/^ocid1\.(compartment|tenancy)\.[\w.-]+$/)
    .describe('OCID of the compartment the image is made in'),
  namespace: z
    .string()
    .regex(/^[A-Za-z0-9_-]{1,100}$/)
    .describe('Object Storage namespace: `oci os ns get`'),
  bucket: z
    .string()
    .regex(/^[A-Za-z0-9._-]{1,256}$/)
    .describe('bucket the image file passes through; it must exist'),
  prefix: z
    .string()
    .regex(/^[A-Za-z0-9._-]+(\/[A-Za-z0-9._-]+)*$/)
    .default('port-image'),
  region: z
    .string()
    .regex(/^[a-z]+(-[a-z0-9]+)+$/)
    .optional()
    .describe('that of the profile when absent'),
  profile: z.string().default('DEFAULT').describe('in ~/.oci/config'),
  launchMode: z.enum(['PARAVIRTUALIZED', 'EMULATED', 'NATIVE']).default('PARAVIRTUALIZED'),
  onExists: z
    .enum(['new-version', 'replace', 'fail'])
    .default('new-version')
    .describe('older images of this name: kept, removed, or a reason to refuse'),
  keepObject: z.boolean().default(false).describe('leave the image file in the bucket'),
  endpoints: z
    .strictObject({ storage: Endpoint.optional(), compute: Endpoint.optional() })
    .default({})
    .describe('other addresses of the services'),
});
/** What the upload to Oracle Cloud needs. */
export type OciOptions = z.infer<typeof OciOptions>;
