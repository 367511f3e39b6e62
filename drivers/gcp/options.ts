/** Options of a Google Cloud target. */
import * as z from 'zod';
import { Endpoint } from '../../tools/endpoint.ts';

/** Compute Engine's pattern for names (compute v1 discovery document, Image.name). */
export const GCE_NAME = /^[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?$/;

/** guestOsFeatures an image may claim (compute v1 discovery document, GuestOsFeature.type), without those of Windows. */
export const GUEST_OS_FEATURES = [
  'UEFI_COMPATIBLE',
  'VIRTIO_SCSI_MULTIQUEUE',
  'MULTI_IP_SUBNET',
  'GVNIC',
  'IDPF',
  'SECURE_BOOT',
  'SEV_CAPABLE',
  'SEV_LIVE_MIGRATABLE_V2',
  'SEV_SNP_CAPABLE',
  'TDX_CAPABLE',
  'SUSPEND_RESUME_COMPATIBLE',
] as const;

/** `--set gcp.…` */
export const GcpOptions = z.strictObject({
  project: z
    .string()
    .regex(/^[a-z][-a-z0-9.:]{4,61}[a-z0-9]$/)
    .describe('id of the project'),
  bucket: z
    .string()
    .regex(/^[a-z0-9][-a-z0-9._]{1,220}[a-z0-9]$/)
    .describe('bucket of the project the archive passes through; it must exist'),
  prefix: z
    .string()
    .regex(/^[A-Za-z0-9._-]+(\/[A-Za-z0-9._-]+)*$/)
    .default('port-image')
    .describe('folder in the bucket'),
  family: z.string().regex(GCE_NAME).optional().describe('image family; made of the name when absent'),
  storageLocations: z
    .array(z.string())
    .default([])
    .describe('where the image is kept; Google chooses when empty'),
  features: z
    .union([z.literal('auto'), z.array(z.enum(GUEST_OS_FEATURES))])
    .default('auto')
    .describe('guestOsFeatures; auto claims what the kernels and the firmware of the guest have'),
  onExists: z
    .enum(['new-version', 'replace', 'fail'])
    .default('new-version')
    .describe('older images of the family: deprecated, removed, or a reason to refuse'),
  keepObject: z.boolean().default(false).describe('leave the archive in the bucket'),
  endpoints: z
    .strictObject({ storage: Endpoint.optional(), compute: Endpoint.optional() })
    .default({})
    .describe('other addresses of the services'),
});
/** What the upload to Google Cloud needs. */
export type GcpOptions = z.infer<typeof GcpOptions>;
