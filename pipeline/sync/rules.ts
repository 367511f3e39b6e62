/** Which rule an image falls under, and how it shall look in a target. Pure. */
import { createHash } from 'node:crypto';
import { PortError } from '../../core/errors.ts';
import { type RetentionConfig, RuleConfig, type SyncConfig } from '../../core/sync/config.ts';
import type { SyncImage, WantedImage } from '../../core/sync/types.ts';
import { printable } from '../../core/text.ts';

/** Longest value of a property (Glance: image_properties.value is text, but clients and other clouds stop at 255). */
const VALUE_CHARS = 255;

/** Whether a text fits a pattern: `*` stands for any text, everything else for itself. Takes time linear in both. */
export function matches(pattern: string, text: string): boolean {
  const parts = pattern.split('*');
  const [first = ''] = parts;
  if (parts.length === 1) return first === text;
  const last = parts.at(-1) ?? '';
  if (!text.startsWith(first)) return false;
  let at = first.length;
  for (const part of parts.slice(1, -1)) {
    const found = text.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return text.length - last.length >= at && text.endsWith(last);
}

/**
 * The first rule that fits image and target, so that one image may look differently in two clouds; without any rule everything goes
 * everywhere as it is. Undefined: the image does not go there.
 */
export function ruleFor(
  config: SyncConfig,
  source: string,
  image: SyncImage,
  target: string,
): RuleConfig | undefined {
  if (config.rules.length === 0) return RuleConfig.parse({});
  return config.rules.find(
    ({ match, targets }) =>
      (targets === undefined || targets.includes(target)) &&
      (match.source === undefined || match.source === source) &&
      match.names.some((pattern) => matches(pattern, image.name) || matches(pattern, image.series)),
  );
}

/** How the image shall look. Throws CONFIG for a name that comes out empty or too long. */
export function wantedImage(rule: RuleConfig, image: SyncImage): WantedImage {
  const fields: Readonly<Record<string, string>> = {
    name: image.name,
    series: image.series,
    version: image.version,
    date: image.createdAt.slice(0, 10),
  };
  const name = rule.name.replace(/\{([a-z]+)\}/g, (whole, field: string) => fields[field] ?? whole).trim();
  if (name === '' || name.length > VALUE_CHARS) {
    throw new PortError(
      'CONFIG',
      `the name of ${printable(image.series)} comes out ${name === '' ? 'empty' : 'too long'}`,
      {
        hint: 'change `name` of its rule',
      },
    );
  }
  const kept = Object.entries(image.properties).filter(
    ([key, value]) => isPlain(value) && !rule.properties.drop.some((pattern) => matches(pattern, key)),
  );
  return {
    name: [...name].map((c) => (isPlain(c) ? c : '_')).join(''),
    visibility: rule.visibility,
    members: [...rule.members].sort(),
    protected: rule.protected,
    properties: { ...Object.fromEntries(kept), ...rule.properties.set },
  };
}

/** Text without control characters that every cloud takes. */
function isPlain(value: string): boolean {
  return value.length <= VALUE_CHARS && !/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/.test(value);
}

/** sha256 of what is wanted, in a fixed order, 32 hex digits: kept with the image, it tells whether anything must be changed. */
export function wantedDigest(wanted: WantedImage): string {
  const properties = Object.entries(wanted.properties).sort(([a], [b]) => (a < b ? -1 : 1));
  const text = JSON.stringify([
    wanted.name,
    wanted.visibility,
    [...wanted.members].sort(),
    wanted.protected,
    properties,
  ]);
  return createHash('sha256').update(text).digest('hex').slice(0, 32);
}

/** Whether a version is never retired. */
export function isPinned({ pins }: RetentionConfig, series: string, version: string): boolean {
  return pins.some((pin) => matches(pin, series) || matches(pin, `${series}@${version}`));
}
