/** What a metadata service is: requests in, answers out; `serve.ts` puts it on a socket. */
import type { IncomingHttpHeaders } from 'node:http';

/** One request of the guest. */
export interface MetadataRequest {
  method: string;
  /** Without query, each run of slashes one slash. */
  path: string;
  query: URLSearchParams;
  headers: IncomingHttpHeaders;
  body: string;
}

/** The answer. */
export interface MetadataAnswer {
  status: number;
  type?: string;
  headers?: Readonly<Record<string, string>>;
  body?: string;
  /** Milliseconds to wait before it is sent: a long poll of the guest's agent. */
  afterMs?: number;
}

/** A metadata service. */
export type MetadataService = (request: MetadataRequest) => MetadataAnswer;

/** What an instance is told, as far as services show it. */
export interface ServiceMetadata {
  instanceId: string;
  hostname: string;
  userData: string;
  /** MAC of the only card, lower case with colons. */
  mac: string;
  /** Address DHCP gives it. */
  address: string;
  /** Network in CIDR form. */
  net: string;
}

/** Names and values of a metadata tree. */
export type Tree = { [name: string]: string | Tree };

/** 404 without content. */
export const NOT_FOUND: MetadataAnswer = { status: 404 };

/** A plain answer. */
export function text(body: string, type = 'text/plain'): MetadataAnswer {
  return { status: 200, type, body };
}

/** What stands at a path of a tree; undefined when there is nothing. */
export function at(tree: Tree, path: string): string | Tree | undefined {
  let node: string | Tree | undefined = tree;
  for (const part of path.split('/').filter((p) => p !== '')) {
    if (typeof node !== 'object' || !Object.hasOwn(node, part)) return undefined;
    node = node[part];
  }
  return node;
}

/** A folder as EC2 and those that copied it list it: names by line, folders with a slash. */
export function listing(tree: Tree): string {
  return Object.entries(tree)
    .map(([name, value]) => (typeof value === 'string' ? name : `${name}/`))
    .join('\n');
}

/** A value, or the listing of a folder. */
export function treeAnswer(tree: Tree, path: string): MetadataAnswer {
  const found = at(tree, path);
  if (found === undefined) return NOT_FOUND;
  return text(typeof found === 'string' ? found : listing(found));
}
