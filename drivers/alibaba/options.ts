/** Options of an Alibaba Cloud target. */
import * as z from 'zod';
import { Endpoint } from '../../tools/endpoint.ts';

/** `--set alibaba.…` */
export const AlibabaOptions = z.strictObject({
  region: z
    .string()
    .regex(/^[a-z]+(-[a-z0-9]+)+$/)
    .describe('id of the region; the bucket must be there too'),
  bucket: z
    .string()
    .regex(/^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$/)
    .describe('OSS bucket the image file passes through; it must exist'),
  prefix: z
    .string()
    .regex(/^[A-Za-z0-9._-]+(\/[A-Za-z0-9._-]+)*$/)
    .default('port-image'),
  profile: z
    .string()
    .optional()
    .describe('in ~/.aliyun/config.json; the environment or its current one when absent'),
  roleName: z
    .string()
    .regex(/^[\w.-]{1,64}$/)
    .default('AliyunECSImageImportDefaultRole')
    .describe('RAM role with which ECS reads the bucket'),
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
/** What the upload to Alibaba Cloud needs. */
export type AlibabaOptions = z.infer<typeof AlibabaOptions>;
