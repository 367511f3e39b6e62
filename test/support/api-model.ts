/** Checks requests against an API's discovery document, so that a test server knows no more and no less than the provider says. */

interface Schema {
  type?: string;
  $ref?: string;
  enum?: string[];
  pattern?: string;
  readOnly?: boolean;
  properties?: Record<string, Schema>;
  additionalProperties?: Schema;
  items?: Schema;
}

interface Parameter {
  location?: string;
  type: string;
  pattern?: string;
  required?: boolean;
}

interface Method {
  httpMethod: string;
  path: string;
  parameters: Record<string, Parameter>;
  request?: { $ref: string };
}

/** The parts of a discovery document that are read. */
export interface Discovery {
  commonParameters: Record<string, unknown>;
  methods: Record<string, Method>;
  schemas: Record<string, Schema>;
}

/** A request the document knows, with what is wrong with it. */
export interface Checked {
  id: string;
  params: Record<string, string>;
  problems: string[];
}

function checkValue(model: Discovery, schema: Schema, value: unknown, at: string): string[] {
  if (schema.$ref !== undefined) {
    const target = model.schemas[schema.$ref];
    return target === undefined ? [`${at}: unknown schema`] : checkValue(model, target, value, at);
  }
  if (schema.readOnly) return [`${at} is output only`];
  const { type } = schema;
  if (type === 'array') {
    if (!Array.isArray(value)) return [`${at} is no array`];
    return value.flatMap((v, i) => checkValue(model, schema.items ?? {}, v, `${at}[${i}]`));
  }
  if (type === 'object') {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return [`${at} is no object`];
    return Object.entries(value).flatMap(([key, v]) => {
      const inner = schema.properties?.[key] ?? schema.additionalProperties;
      return inner === undefined
        ? [`${at}.${key} is not in the schema`]
        : checkValue(model, inner, v, `${at}.${key}`);
    });
  }
  if (type === 'string') {
    if (typeof value !== 'string') return [`${at} is no string`];
    if (schema.enum !== undefined && !schema.enum.includes(value)) return [`${at} is none of its values`];
    if (schema.pattern !== undefined && !new RegExp(`^(?:${schema.pattern})$`).test(value))
      return [`${at} does not match ${schema.pattern}`];
    return [];
  }
  if (type === 'boolean') return typeof value === 'boolean' ? [] : [`${at} is no boolean`];
  return typeof value === 'number' ? [] : [`${at} is no number`];
}

/** The method a request is for, or undefined when the document has none; `base` is what comes before the paths. */
export function checkRequest(
  model: Discovery,
  request: { method: string; url: URL; body: unknown },
  base: string,
): Checked | undefined {
  for (const [id, method] of Object.entries(model.methods)) {
    const names = [...method.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name ?? '');
    const pattern = new RegExp(`^${base}${method.path.replace(/\{\w+\}/g, '([^/]+)')}$`);
    const found = pattern.exec(request.url.pathname);
    if (found === null || method.httpMethod !== request.method) continue;
    const problems: string[] = [];
    const params: Record<string, string> = {};
    for (const [i, name] of names.entries()) {
      const value = decodeURIComponent(found[i + 1] ?? '');
      params[name] = value;
      const known = method.parameters[name];
      if (known?.pattern !== undefined && !new RegExp(`^(?:${known.pattern})$`).test(value))
        problems.push(`path parameter ${name} does not match ${known.pattern}`);
    }
    for (const [name, value] of request.url.searchParams) {
      params[name] = value;
      const known = method.parameters[name]?.location === 'query' || name in model.commonParameters;
      if (!known) problems.push(`query parameter ${name} is not in the document`);
    }
    if (method.request === undefined) {
      if (request.body !== undefined) problems.push('a body where the document has none');
    } else problems.push(...checkValue(model, method.request, request.body, method.request.$ref));
    return { id, params, problems };
  }
  return undefined;
}
