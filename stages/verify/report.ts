/** The guest's report: every byte of it is hostile, so it is bounded, decoded and made printable here. */

import { parsedJson, printable } from '../../core/text.ts';
import { parseObject } from '../../tools/line-socket.ts';

/** Most bytes of one section after decoding; the reporter sends at most 16 KiB. */
const SECTION_BYTES = 32 * 1024;
/** Most sections kept. */
const MAX_SECTIONS = 60;
const SECTION_NAME = /^[a-z][a-z-]{0,30}$/;

/** One section of the report. */
export interface Section {
  status: number;
  /** As the guest sent it, not printable yet. */
  text: string;
}

/** Collects the report line by line. */
export class ReportReader {
  readonly #nonce: string;
  readonly #sections = new Map<string, Section[]>();
  #count = 0;
  /** The newest state the reporter told while it waited, printable. */
  waiting = '';
  /** Kernel version once the reporter runs, printable. */
  kernel = '';
  ended = false;

  constructor(nonce: string) {
    this.#nonce = nonce;
  }

  /** Takes a line of the port; anything that is not a line of the reporter is dropped. */
  take(line: string): void {
    const message = parseObject(line);
    if (message === undefined || message.n !== this.#nonce || this.ended) return;
    const { k: name, s: status, d: data } = message;
    if (typeof name !== 'string' || !SECTION_NAME.test(name) || typeof data !== 'string') return;
    const text = Buffer.from(data.slice(0, SECTION_BYTES * 2), 'base64')
      .subarray(0, SECTION_BYTES)
      .toString('utf8');
    if (name === 'start') this.kernel = oneLine(text);
    else if (name === 'wait') this.waiting = oneLine(text);
    else if (name === 'end') this.ended = true;
    else if (this.#count++ < MAX_SECTIONS) {
      const known = this.#sections.get(name) ?? [];
      known.push({ status: typeof status === 'number' ? status : -1, text });
      this.#sections.set(name, known);
    }
  }

  /** The text of a section, empty when it was not sent. */
  text(name: string): string {
    return this.#sections.get(name)?.[0]?.text ?? '';
  }

  /** Printable lines of a section. */
  lines(name: string): string[] {
    return this.text(name)
      .split('\n')
      .filter((line) => line.trim() !== '')
      .map((line) => printable(line).slice(0, 500));
  }

  /** JSON of a section, or undefined. */
  json(name: string): unknown {
    return parsedJson(this.text(name));
  }

  /** Everything for verification.json: printable lines by section. */
  toJSON(): Record<string, string[]> {
    const all: Record<string, string[]> = {};
    for (const [name, sections] of this.#sections) {
      all[name] = sections.flatMap((s) => s.text.split('\n').map((line) => printable(line).slice(0, 500)));
    }
    return all;
  }
}

/** First line, printable, at most 200 characters. */
export function oneLine(text: string): string {
  return printable(text.trim().split('\n')[0] ?? '').slice(0, 200);
}
