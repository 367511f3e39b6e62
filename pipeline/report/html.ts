/** Building HTML from untrusted text: every value is escaped, and control bytes are shown, not sent. */
import { printable } from '../../core/text.ts';

/** A piece of finished HTML. */
export interface Html {
  readonly html: string;
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** Escapes text for element content and quoted attributes; line breaks and tabs stay. */
export function escapeHtml(text: string): string {
  const visible = text
    .split(/(?<=[\n\t])|(?=[\n\t])/)
    .map((part) => (part === '\n' || part === '\t' ? part : printable(part)));
  return visible.join('').replace(/[&<>"']/g, (c) => ENTITIES[c] ?? c);
}

type Value = string | number | boolean | null | undefined | Html | readonly Html[];

function render(value: Value): string {
  if (value === null || value === undefined) return '';
  if (typeof value === 'object') return 'html' in value ? value.html : value.map((v) => v.html).join('');
  return escapeHtml(String(value));
}

/** Template tag: interpolated text is escaped, interpolated Html is not. */
export function html(parts: TemplateStringsArray, ...values: Value[]): Html {
  return {
    html: parts.map((part, index) => part + (index < values.length ? render(values[index]) : '')).join(''),
  };
}
