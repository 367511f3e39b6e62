/**
 * Pages the server's own web server answers on port 80, as far as a configuration says so without doubt: the static
 * index file of the default site. The verification boot asks for them and compares.
 */
import { createHash } from 'node:crypto';
import type { Service } from '../../core/facts.ts';
import type { GuestFiles } from '../../core/guest.ts';
import type { Bundle } from './bundle.ts';

/** A static page. `sha256` is that of the file on the source, hex. */
export interface Page {
  path: string;
  file: string;
  sha256: string;
}

const MAX_PAGE_BYTES = 1024 * 1024;
/** Nobody writes larger files for a web server by hand. */
const MAX_CONFIG_CHARS = 262_144;

/** Bodies of `server { … }` blocks; comments are removed, braces counted. */
export function serverBlocks(config: string): string[] {
  const text = config.replace(/^[ \t]*#.*$/gm, '').replace(/[ \t]#[^\n]*/g, '');
  const blocks: string[] = [];
  // Each byte is looked at once: servers do not nest, and behind one that never ends nothing is certain.
  let done = 0;
  for (const match of text.matchAll(/(?:^|[\s;}])server\s*\{/g)) {
    const start = match.index + match[0].length;
    if (start <= done) continue;
    let depth = 1;
    let at = start;
    while (at < text.length && depth > 0) {
      if (text[at] === '{') depth += 1;
      else if (text[at] === '}') depth -= 1;
      at += 1;
    }
    if (depth > 0) break;
    blocks.push(text.slice(start, at - 1));
    done = at;
  }
  return blocks;
}

/** Index file of a site that serves `/` from a folder and nothing else, or undefined when that is not certain. */
export function staticIndex(block: string): string | undefined {
  const listens = [...block.matchAll(/(?:^|[\s;])listen\s+([^;]+);/g)].map((m) => m[1] ?? '');
  const plain =
    listens.length === 0 || listens.some((l) => /^(?:\S*:)?80(?:\s|$)/.test(l) && !/\bssl\b/.test(l));
  // anything that may answer `/` otherwise makes the file's content no promise
  if (
    !plain ||
    /\b(return|rewrite|auth_basic|auth_request|proxy_pass|sub_filter|error_page|deny|try_files)\b/.test(
      rootOnly(block),
    )
  )
    return undefined;
  const root = /(?:^|[\s;])root\s+["']?(\/[^;"'$]+?)["']?\s*;/.exec(rootOnly(block))?.[1];
  if (root === undefined) return undefined;
  const index =
    /(?:^|[\s;])index\s+([^;]+);/.exec(rootOnly(block))?.[1]?.trim().split(/\s+/)[0] ?? 'index.html';
  return /^[\w.-]+\.html?$/.test(index) ? `${root.replace(/\/+$/, '')}/${index}` : undefined;
}

/** A server block without the locations other than `/`. */
function rootOnly(block: string): string {
  let out = '';
  let rest = block;
  for (;;) {
    const match = /location\s+([^{]{0,1000})\{/.exec(rest);
    if (match === null) return out + rest;
    out += rest.slice(0, match.index);
    let depth = 1;
    let at = match.index + match[0].length;
    const start = at;
    while (at < rest.length && depth > 0) {
      if (rest[at] === '{') depth += 1;
      else if (rest[at] === '}') depth -= 1;
      at += 1;
    }
    if (/^(=\s*)?\/$/.test((match[1] ?? '').trim())) {
      // `try_files $uri …` serves the file that is there
      out += ` ${rest.slice(start, at - 1).replace(/try_files\s+\$uri\s[^;]*;/g, '')} `;
    }
    rest = rest.slice(at);
  }
}

/** Finds the static front page of the default nginx site. */
export async function findPages(
  guest: GuestFiles,
  bundle: Bundle,
  services: readonly Service[],
): Promise<Page[]> {
  if (!services.some((s) => s.unit === 'nginx.service' && s.enabled)) return [];
  const blocks = [...bundle.below('/etc/nginx/conf.d'), ...bundle.below('/etc/nginx/sites-enabled')]
    .sort()
    .map((file) => bundle.text(file) ?? '')
    .flatMap((text) => (text.length > MAX_CONFIG_CHARS ? [] : serverBlocks(text)));
  const site = blocks.find((b) => /listen\s[^;]*default_server/.test(b)) ?? blocks[0];
  const file = site === undefined ? undefined : staticIndex(site);
  if (file === undefined || (await guest.kind(file)) !== 'file') return [];
  const content = await guest.read(file).catch(() => undefined);
  if (content === undefined || content.length > MAX_PAGE_BYTES) return [];
  return [{ path: '/', file, sha256: createHash('sha256').update(content).digest('hex') }];
}
