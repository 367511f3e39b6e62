/** Options of an Azure target. Credentials are none of them. */
import * as z from 'zod';

const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$/;

/** `--set azure.…` */
export const AzureOptions = z
  .strictObject({
    subscription: z
      .string()
      .regex(/^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$/, 'not the id of a subscription (a UUID)'),
    resourceGroup: z.string().regex(/^[A-Za-z0-9_.()-]{1,90}$/, 'not a name of a resource group'),
    location: z.string().regex(/^[a-z0-9]{2,40}$/, 'not a region, such as westeurope'),
    method: z
      .enum(['page-blob', 'managed-disk'])
      .default('page-blob')
      .describe(
        'page-blob: a VHD in a container of yours; managed-disk: straight into a disk, no storage account',
      ),
    storageAccount: z.string().optional().describe('for page-blob'),
    container: z.string().optional().describe('for page-blob; it must exist'),
    storageResourceGroup: z.string().optional().describe('of the storage account, when it is another one'),
    gallery: z
      .string()
      .regex(NAME)
      .optional()
      .describe('compute gallery; it must exist. None: a managed image'),
    definition: z
      .string()
      .regex(NAME)
      .optional()
      .describe('image definition in the gallery; the name of the image'),
    version: z
      .string()
      .regex(/^\d{1,9}\.\d{1,9}\.\d{1,9}$/, 'a version is three numbers: 1.2.3')
      .optional()
      .describe('of the image in the gallery; one more than the newest'),
    publisher: z.string().regex(NAME).default('port-image').describe('of a definition that is made'),
    osState: z
      .enum(['generalized', 'specialized'])
      .default('generalized')
      .describe(
        'generalized: cloud-init sets the machine up at its first start; specialized: it starts as it is',
      ),
    trustedLaunch: z
      .boolean()
      .default(false)
      .describe('secure boot and vTPM may be used; UEFI and a gallery only'),
    diskSku: z
      .enum(['Standard_LRS', 'StandardSSD_LRS', 'Premium_LRS'])
      .default('Standard_LRS')
      .describe('for managed-disk'),
    onExists: z.enum(['new-version', 'replace', 'fail']).default('new-version'),
    keepSource: z.boolean().default(false).describe('keep blob or disk when the image is made of it'),
    tags: z.record(z.string().regex(/^[^<>%&\\?/]{1,512}$/), z.string().max(256)).default({}),
    endpoints: z
      .strictObject({
        management: z.string().optional().describe('Azure Resource Manager'),
        blob: z.string().optional().describe('blob service of the account, without the container'),
        authority: z.string().optional().describe('login service'),
      })
      .default({})
      .describe('of another cloud than the public one'),
    caFile: z
      .string()
      .optional()
      .describe('absolute path of a PEM file with further certificate authorities'),
  })
  .refine(
    (o) => o.method === 'managed-disk' || (o.storageAccount !== undefined && o.container !== undefined),
    {
      path: ['storageAccount'],
      message: 'method page-blob needs storageAccount and container',
    },
  )
  .refine((o) => o.gallery !== undefined || (o.definition === undefined && o.version === undefined), {
    path: ['gallery'],
    message: 'definition and version are of a gallery: name it',
  })
  .refine((o) => o.gallery !== undefined || o.osState === 'generalized', {
    path: ['osState'],
    message: 'a managed image is always generalized; specialized ones need a gallery',
  })
  .refine((o) => o.gallery !== undefined || !o.trustedLaunch, {
    path: ['trustedLaunch'],
    message: 'only an image of a gallery can ask for Trusted Launch',
  });
/** What the upload to Azure needs. */
export type AzureOptions = z.infer<typeof AzureOptions>;
