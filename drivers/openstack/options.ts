/** Options of an OpenStack target. */
import * as z from 'zod';

/** Ways of bringing an image into Glance; `auto` takes the best one the cloud offers. */
export const UPLOAD_METHODS = ['auto', 'put', 'import', 'web-download'] as const;
/** A way of bringing an image into Glance. */
export type UploadMethod = (typeof UPLOAD_METHODS)[number];

/** `--set openstack.…`, and the flags of `convert` of the same meaning. */
export const GlanceRequest = z
  .strictObject({
    cloud: z.string().describe('name in clouds.yaml, or `envvars` for the OS_* variables'),
    method: z.enum(UPLOAD_METHODS).default('auto'),
    stores: z
      .union([z.literal('all'), z.array(z.string())])
      .default([])
      .describe('Glance stores; the default one when empty'),
    onExists: z
      .enum(['new-version', 'replace', 'fail'])
      .default('new-version')
      .describe('when the project has an image of this name; `replace` removes the older one'),
    visibility: z.enum(['private', 'shared', 'community', 'public']).default('private'),
    members: z.array(z.string()).default([]).describe('project ids a shared image is offered to'),
    protected: z.boolean().default(false),
    signKey: z
      .string()
      .optional()
      .describe('absolute path of a PEM private key; its content is never stored'),
    signCertificate: z.string().optional().describe('id of the certificate in the cloud key manager'),
  })
  .refine((o) => o.members.length === 0 || o.visibility === 'shared', {
    path: ['members'],
    message: 'sharing with projects (--member) needs --visibility shared',
  })
  .refine((o) => (o.signKey === undefined) === (o.signCertificate === undefined), {
    path: ['signKey'],
    message: '--sign-key and --sign-certificate (its id in the key manager of the cloud) belong together',
  });
/** What the upload to an OpenStack cloud needs. */
export type GlanceRequest = z.infer<typeof GlanceRequest>;
