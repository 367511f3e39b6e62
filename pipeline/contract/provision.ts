/** Does a provision document answer what a contract asks for? URLs are secrets: no message holds one. */
import { type Contract, Provision } from '../../core/contract.ts';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import type { UnmetNeed } from './match.ts';

/**
 * Reads a provision document: the value itself, or a vendor data document that carries it as `port_image`.
 * Throws CONFIG naming the field that is wrong, never its value.
 */
export function parseProvision(text: string, where: string): Provision {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // the parser's own message would quote the text
    throw new PortError('CONFIG', `${printable(where)} is not JSON`);
  }
  const wrapped = typeof value === 'object' && value !== null && 'port_image' in value;
  const parsed = Provision.safeParse(wrapped ? (value as { port_image: unknown }).port_image : value);
  if (!parsed.success) {
    const at = parsed.error.issues[0]?.path.join('.') || 'top level';
    throw new PortError('CONFIG', `${printable(where)} is no provision document: ${printable(at)} is wrong`, {
      hint: 'it follows schemas/provision.json; docs/data-sets.md has an example',
    });
  }
  return parsed.data;
}

/** What the document leaves unanswered, and what is worth a word. */
export function provisionNeeds(
  contract: Contract,
  provision: Provision,
  nowMs: number,
): { unmet: UnmetNeed[]; notes: string[] } {
  const unmet: UnmetNeed[] = [];
  const notes: string[] = [];
  for (const { name, required } of contract.credentials) {
    const set = contract.data.find((d) => d.credential === name);
    if (set !== undefined) continue;
    // only data sets have credentials so far: another one cannot be answered
    if (required)
      unmet.push({
        need: 'credential',
        detail: `no provision document can answer ${name}`,
        hint: 'use a newer port-image',
      });
  }
  for (const set of contract.data) {
    const answer = Object.hasOwn(provision.data, set.id) ? provision.data[set.id] : undefined;
    const required = contract.credentials.some((c) => c.name === set.credential && c.required);
    if (answer === undefined) {
      if (set.mode === 'manual' && !required)
        notes.push(`no URL for ${set.id}; it is only fetched on command`);
      else
        unmet.push({
          need: 'credential',
          detail: `the provision document has no ${set.credential} (${printable(set.mount)}, ${set.mode})`,
          hint: `port-image data mint ${set.id} makes one`,
        });
      continue;
    }
    if (answer.expires === undefined) continue;
    const expiresMs = Date.parse(answer.expires);
    if (Number.isNaN(expiresMs))
      notes.push(`data.${set.id}.expires is no time (${printable(answer.expires)})`);
    else if (expiresMs <= nowMs)
      unmet.push({
        need: 'expired',
        detail: `the URL of ${set.id} expired at ${new Date(expiresMs).toISOString()}`,
        hint: `port-image data mint ${set.id} makes a new one`,
      });
  }
  const foreign = Object.keys(provision.data).filter((id) => !contract.data.some((d) => d.id === id));
  if (foreign.length > 0)
    notes.push(`the provision document also names ${foreign.join(', ')}, which this image has not`);
  return { unmet, notes };
}
