/** Options of an AWS target. */
import * as z from 'zod';
import { Endpoint } from '../../tools/endpoint.ts';

const Region = z.string().regex(/^[a-z]{2}(-[a-z]+)+-\d$/, 'a region such as eu-central-1');

/** `--set aws.…` */
export const AwsOptions = z.strictObject({
  region: Region.describe('where the image is registered'),
  profile: z.string().optional().describe('of the shared AWS configuration files'),
  parent: z
    .string()
    .optional()
    .describe('job folder of an earlier upload: only blocks that differ from its snapshot are sent'),
  kmsKeyArn: z
    .string()
    .regex(/^arn:[a-z-]+:kms:/)
    .optional()
    .describe('key to encrypt the snapshot with'),
  copyTo: z.array(Region).default([]).describe('further regions that get a copy'),
  shareWith: z
    .array(z.string().regex(/^\d{12}$/, 'an account number of 12 digits'))
    .default([])
    .describe('accounts that may start the image'),
  tpm: z.boolean().default(false).describe('NitroTPM 2.0; for images that start by UEFI'),
  onExists: z
    .enum(['new-version', 'replace', 'fail'])
    .default('new-version')
    .describe(
      'earlier images of this name by this program: kept, removed with their snapshots, or a reason to refuse',
    ),
  tags: z.record(z.string(), z.string()).default({}).describe('further tags'),
  endpoints: z
    .strictObject({ ebs: Endpoint.optional(), ec2: Endpoint.optional() })
    .default({})
    .describe('other addresses of the services'),
});
/** What the upload to AWS needs. */
export type AwsOptions = z.infer<typeof AwsOptions>;
