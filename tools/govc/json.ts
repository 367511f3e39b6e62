/** Answers of `govc -json`, as far as they are read here. */
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';

/** A managed object by type and number: `VirtualMachine:vm-75`. govc takes it wherever it takes a path. */
const Reference = z.object({ type: z.string(), value: z.string() });

/** `about`. */
export const About = z.object({
  about: z.object({ fullName: z.string(), apiType: z.string(), apiVersion: z.string() }),
});

/** `datastore.info`. */
export const Datastores = z.object({
  datastores: z
    .array(
      z.object({
        name: z.string(),
        info: z.object({ maxFileSize: z.number().default(0) }).loose(),
        summary: z.object({
          freeSpace: z.number(),
          accessible: z.boolean(),
          maintenanceMode: z.string().default('normal'),
        }),
      }),
    )
    .nullish(),
});

/** `pool.info`. */
export const Pools = z.object({ resourcePools: z.array(z.object({ self: Reference })).nullish() });

/** `device.info`. */
export const Devices = z.object({
  devices: z.array(
    z.object({
      name: z.string(),
      type: z.string(),
      capacityInBytes: z.number().optional(),
      capacityInKB: z.number().optional(),
    }),
  ),
});

const Collected = z.object({
  obj: Reference,
  changeSet: z.array(z.object({ name: z.string(), val: z.unknown() })),
});

/** Properties of one object of `object.collect`. */
export interface CollectedObject {
  /** `VirtualMachine:vm-75`. */
  id: string;
  values: ReadonlyMap<string, unknown>;
}

/** One JSON document. Throws CLOUD when govc printed something else. */
export function parseAnswer<T>(schema: z.ZodType<T>, command: string, text: string): T {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new PortError('CLOUD', `vSphere, ${command}: the answer is not JSON`, { cause });
  }
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  throw new PortError('CLOUD', `vSphere, ${command}: an answer of another form`, {
    cause: parsed.error,
    hint: 'which version of govc is it? run: govc version',
  });
}

/** `object.collect -json -type`: one JSON document after the other, or none. Throws CLOUD. */
export function parseCollected(text: string): CollectedObject[] {
  return documents(text).map((document) => {
    const { obj, changeSet } = parseAnswer(Collected, 'object.collect', document);
    return {
      id: `${obj.type}:${obj.value}`,
      values: new Map(changeSet.map((c) => [c.name, c.val])),
    };
  });
}

/** Splits documents that follow each other: an object ends where its braces do, outside of strings. */
export function documents(text: string): string[] {
  const found: string[] = [];
  let depth = 0;
  let start = 0;
  let inString = false;
  for (let at = 0; at < text.length; at++) {
    const c = text[at];
    if (inString) {
      if (c === '\\') at++;
      else if (c === '"') inString = false;
    } else if (c === '"') inString = true;
    else if (c === '{' && depth++ === 0) start = at;
    else if (c === '}' && --depth === 0) found.push(text.slice(start, at + 1));
  }
  return found;
}
