/** XML somebody else wrote, as a tree by local names. Nothing in it is expanded, fetched or resolved. */
import { XMLParser, XMLValidator } from 'fast-xml-parser';
import { PortError } from '../../core/errors.ts';
import { damaged } from '../image-format/reader.ts';

/** Largest OVF descriptor read. VMware's of a machine with many disks takes 30 KiB, VirtualBox's some more. */
export const MAX_XML_BYTES = 1024 * 1024;
/** Deepest nesting; OVF needs 8 and VirtualBox's own section 12. */
const MAX_DEPTH = 64;
/** Most elements; keeps time and memory flat. */
const MAX_ELEMENTS = 50_000;

/** An element. Children are lists even when there is one, so one disk reads like two. */
export class XmlElement {
  readonly #node: Readonly<Record<string, unknown>>;

  constructor(node: unknown) {
    this.#node =
      typeof node === 'object' && node !== null ? (node as Record<string, unknown>) : { '#text': node };
  }

  /** Children with this local name. */
  all(name: string): XmlElement[] {
    const found = Object.hasOwn(this.#node, name) ? this.#node[name] : undefined;
    return Array.isArray(found) ? found.map((node) => new XmlElement(node)) : [];
  }

  /** The first child with this local name. */
  first(name: string): XmlElement | undefined {
    return this.all(name)[0];
  }

  /** Text of the first child with this local name; undefined when there is none or it is empty. */
  text(name: string): string | undefined {
    return this.first(name)?.content || undefined;
  }

  /** Value of an attribute by local name. */
  attribute(name: string): string | undefined {
    const key = `@${name}`;
    const value = Object.hasOwn(this.#node, key) ? this.#node[key] : undefined;
    return typeof value === 'string' ? value : undefined;
  }

  /** Own text, trimmed. */
  get content(): string {
    const value = Object.hasOwn(this.#node, '#text') ? this.#node['#text'] : undefined;
    return typeof value === 'string' ? value.trim() : '';
  }
}

function refused(name: string, why: string): PortError {
  return new PortError('UNSAFE_IMAGE', `${name} is refused: ${why}`, {
    hint: 'no OVF needs that; export the machine again',
  });
}

/** Text without comments and CDATA. By hand: a pattern takes quadratic time on many openings without an end. */
function markupOnly(text: string): string {
  const kept: string[] = [];
  let at = 0;
  for (;;) {
    const start = text.indexOf('<!', at);
    if (start === -1) return kept.join('') + text.slice(at);
    const [open, close] = text.startsWith('<!--', start) ? ['<!--', '-->'] : ['<![CDATA[', ']]>'];
    const end = text.startsWith(open, start) ? text.indexOf(close, start + open.length) : -1;
    if (end === -1) return kept.join('') + text.slice(at);
    kept.push(text.slice(at, start));
    at = end + close.length;
  }
}

/** Refuses what only attacks need, before the parser sees it. */
function refuseActive(name: string, content: string): void {
  const text = markupOnly(content);
  if (text.includes('<!')) throw refused(name, 'its XML has a DOCTYPE or entities');
  if (/<\?(?!xml[\s?])/i.test(text)) throw refused(name, 'its XML has processing instructions');
  if (/&(?!(amp|lt|gt|quot|apos|#0*[1-9]\d{0,6}|#x0*[1-9a-f][0-9a-f]{0,5});)/i.test(text)) {
    throw refused(name, 'its XML uses entities that are not its own');
  }
  let depth = 0;
  let elements = 0;
  for (const [, closing, selfClosing] of text.matchAll(
    /<(\/?)[^\s<>!?/](?:"[^"]*"|'[^']*'|[^<>"'])*?(\/?)>/g,
  )) {
    if (closing) depth--;
    else {
      if (!selfClosing) depth++;
      elements++;
    }
    if (depth > MAX_DEPTH || elements > MAX_ELEMENTS) throw refused(name, 'its XML is too deep or too long');
  }
}

/**
 * Parses a descriptor; `name` is printable. The result holds the root element under its local name. Throws UNSAFE_IMAGE for DOCTYPE, entities,
 * processing instructions and excessive nesting, DAMAGED for what is no XML.
 */
export function parseXml(name: string, data: Buffer): XmlElement {
  if (data.length > MAX_XML_BYTES) throw refused(name, 'its descriptor is larger than 1 MiB');
  const text = data.toString('utf8').replace(/^\ufeff/, '');
  if (text.includes('\0'))
    throw damaged({ name, sizeBytes: 0, read: async () => data }, 'its descriptor is no XML text');
  refuseActive(name, text);
  try {
    const valid = XMLValidator.validate(text);
    if (valid !== true) throw new Error(`line ${valid.err.line}`);
    const parser = new XMLParser({
      ignoreAttributes: false,
      attributeNamePrefix: '@',
      removeNSPrefix: true,
      parseTagValue: false,
      parseAttributeValue: false,
      htmlEntities: true, // numbers such as &#10;; names of HTML were refused above
      isArray: (_name, _path, _leaf, isAttribute) => !isAttribute,
    });
    return new XmlElement(parser.parse(text));
  } catch (cause) {
    throw new PortError('DAMAGED', `${name} is damaged: its descriptor is no well-formed XML`, {
      hint: 'copy or export the machine again',
      cause,
    });
  }
}
