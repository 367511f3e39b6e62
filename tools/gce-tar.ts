/** GCE's container: a gzip-compressed GNU tar with one sparse member named `disk.raw`. */

/** Name of the only member (docs.cloud.google.com/compute/docs/import/import-existing-image). */
export const GCE_MEMBER = 'disk.raw';
