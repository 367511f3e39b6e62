/** Keys the schema of a sync file has at a place, for hints and for the test of its manual. */
import * as z from 'zod';
import { SyncConfig } from '../../../core/sync/config.ts';

/** Keys that may stand at a path of the file; of a source those of every kind. Empty where names are free. */
export function knownKeys(path: readonly PropertyKey[], schema: z.ZodType = SyncConfig): readonly string[] {
  let places = [schema];
  for (const step of path) places = places.flatMap((place) => below(place, step));
  return [
    ...new Set(places.flatMap((place) => shapesOf(place).flatMap((shape) => Object.keys(shape.shape)))),
  ];
}

/** Every path of the file that has a name, `*` for names people choose and `[]` for items of a list. */
export function schemaPaths(schema: z.ZodType = SyncConfig, before = ''): string[] {
  const join = (key: string) => (before === '' ? key : `${before}.${key}`);
  const found = variants(schema).flatMap((variant) => {
    if (variant instanceof z.ZodObject) {
      return Object.entries(variant.shape).flatMap(([key, inner]) => [
        join(key),
        ...schemaPaths(inner as z.ZodType, join(key)),
      ]);
    }
    if (variant instanceof z.ZodRecord) return schemaPaths(variant.valueType as z.ZodType, join('*'));
    if (variant instanceof z.ZodArray) return schemaPaths(variant.element as z.ZodType, `${before}[]`);
    return [];
  });
  return [...new Set(found)];
}

function below(schema: z.ZodType, step: PropertyKey): z.ZodType[] {
  return variants(schema).flatMap((variant) => {
    if (variant instanceof z.ZodObject) {
      const inner: unknown = (variant.shape as Record<PropertyKey, unknown>)[step];
      return inner === undefined ? [] : [inner as z.ZodType];
    }
    if (variant instanceof z.ZodRecord) return [variant.valueType as z.ZodType];
    if (variant instanceof z.ZodArray) return [variant.element as z.ZodType];
    return [];
  });
}

function shapesOf(schema: z.ZodType): z.ZodObject[] {
  return variants(schema).filter((variant) => variant instanceof z.ZodObject);
}

/** What a value of it may be, without what only fills in or changes it. */
function variants(schema: z.ZodType): z.ZodType[] {
  if (schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault || schema instanceof z.ZodOptional)
    return variants(schema.unwrap() as z.ZodType);
  if (schema instanceof z.ZodPipe) return variants(schema.in as z.ZodType);
  if (schema instanceof z.ZodUnion) return schema.options.flatMap((option) => variants(option as z.ZodType));
  return [schema];
}
