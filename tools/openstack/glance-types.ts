/** What Glance v2 answers, as far as it is used here (openstack/glance:api-ref/source/v2). */
import * as z from 'zod';

export const GlanceImage = z.looseObject({
  id: z.string(),
  name: z.string().nullish(),
  status: z.string(),
  owner: z.string().nullish(),
  visibility: z.string().default('private'),
  protected: z.boolean().default(false),
  os_hidden: z.boolean().default(false),
  size: z.number().nullish(),
  disk_format: z.string().nullish(),
  checksum: z.string().nullish().describe('md5'),
  os_hash_algo: z.string().nullish(),
  os_hash_value: z.string().nullish(),
  stores: z.string().optional().describe('ids with commas between them'),
  updated_at: z.string().default(''),
  created_at: z.string().default(''),
});
/** An image with all its properties: the own ones stand beside Glance's fields. */
export type GlanceImage = z.infer<typeof GlanceImage>;

export const ImageList = z.looseObject({ images: z.array(GlanceImage), next: z.string().optional() });

export const VersionList = z.looseObject({
  versions: z.array(z.looseObject({ id: z.string(), status: z.string() })),
});

export const ImportInfo = z.looseObject({
  'import-methods': z.looseObject({ value: z.array(z.string()).default([]) }),
});

export const StoreInfo = z.looseObject({
  stores: z.array(
    z.looseObject({
      id: z.string(),
      default: z
        .union([z.boolean(), z.string()])
        .transform((v) => v === true || v === 'true')
        .default(false),
      'read-only': z
        .union([z.boolean(), z.string()])
        .transform((v) => v === true || v === 'true')
        .default(false),
    }),
  ),
});
/** A store of Glance. */
export type GlanceStore = z.infer<typeof StoreInfo>['stores'][number];

export const UsageInfo = z.looseObject({
  usage: z.record(z.string(), z.looseObject({ limit: z.number(), usage: z.number() })),
});
/** Quotas and their use: `image_size_total` and `image_stage_total` in MiB, the rest counts; limit -1 is none. */
export type GlanceUsage = z.infer<typeof UsageInfo>['usage'];

export const MemberList = z.looseObject({
  members: z.array(z.looseObject({ member_id: z.string() })),
});

export const TaskList = z.looseObject({
  tasks: z.array(
    z.looseObject({
      id: z.string(),
      status: z.string(),
      message: z.string().nullish(),
      updated_at: z.string().default(''),
      created_at: z.string().default(''),
    }),
  ),
});
/** A task working on an image. */
export type GlanceTask = z.infer<typeof TaskList>['tasks'][number];

/** One operation of a JSON patch in Glance's form. */
export interface PatchOperation {
  op: 'add' | 'replace' | 'remove';
  path: string;
  value?: unknown;
}

/** What an image is made with. Every other key is a property of one's own and a string. */
export interface NewImage {
  /** Chosen by us, so that a repeated request cannot make two images. */
  id: string;
  name: string;
  disk_format: string;
  container_format: 'bare';
  visibility: 'private';
  min_disk?: number;
  min_ram?: number;
  [property: string]: string | number | undefined;
}

/** Where an import puts the image. */
export type ImportStores = 'all' | readonly string[];
