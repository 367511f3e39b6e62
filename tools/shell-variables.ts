/**
 * Files of shell assignments (`/etc/default/grub`, `initramfs.conf`): reading a variable and changing its value in
 * place, without running a shell. Values with expansions are not understood and said so.
 */

/** One assignment in the text. */
export interface Assignment {
  name: string;
  /** The value after quote removal; undefined when it has expansions or cannot be read. */
  value: string | undefined;
  /** Where the value (with its quotes) stands in the text. */
  start: number;
  end: number;
}

/** Quotes a value for a shell file, always in double quotes. */
export function quoteShell(value: string): string {
  return `"${value.replace(/["\\$`]/g, '\\$&')}"`;
}

interface Word {
  value: string | undefined;
  end: number;
}

function readQuoted(text: string, start: number): { value: string; plain: boolean; end: number } {
  let value = '';
  let plain = true;
  let i = start + 1;
  for (; i < text.length && text[i] !== '"'; i++) {
    const c = text[i] ?? '';
    const next = text[i + 1] ?? '';
    if (c === '\\' && '"\\$`\n'.includes(next) && next !== '') {
      if (next !== '\n') value += next;
      i++;
    } else {
      if (c === '$' || c === '`') plain = false;
      value += c;
    }
  }
  return { value, plain: plain && i < text.length, end: Math.min(i + 1, text.length) };
}

/** Reads one shell word. */
function readWord(text: string, start: number): Word {
  let value = '';
  let plain = true;
  let i = start;
  while (i < text.length && !/[\s;&|<>()]/.test(text[i] ?? '')) {
    const c = text[i] ?? '';
    if (c === "'") {
      const end = text.indexOf("'", i + 1);
      if (end === -1) return { value: undefined, end: text.length };
      value += text.slice(i + 1, end);
      i = end + 1;
    } else if (c === '"') {
      const quoted = readQuoted(text, i);
      value += quoted.value;
      plain &&= quoted.plain;
      i = quoted.end;
    } else if (c === '\\') {
      if (text[i + 1] !== '\n') value += text[i + 1] ?? '';
      i += 2;
    } else {
      if (c === '$' || c === '`') plain = false;
      value += c;
      i++;
    }
  }
  return { value: plain ? value : undefined, end: Math.min(i, text.length) };
}

/** All assignments at the start of a line, in order. */
export function parseAssignments(text: string): Assignment[] {
  const found: Assignment[] = [];
  const pattern = /^[ \t]*(?:export[ \t]+)?([A-Za-z_]\w*)=/gm;
  for (let match = pattern.exec(text); match !== null; match = pattern.exec(text)) {
    const start = match.index + match[0].length;
    const word = readWord(text, start);
    found.push({ name: match[1] ?? '', value: word.value, start, end: word.end });
    pattern.lastIndex = Math.max(word.end, start);
  }
  return found;
}

/** The assignment that counts: the last one of this name. */
export function lastAssignment(text: string, name: string): Assignment | undefined {
  return parseAssignments(text).findLast((a) => a.name === name);
}

/** Sets a variable: in place when it is assigned, else on a new line at the end. */
export function setVariable(text: string, name: string, value: string): string {
  const found = lastAssignment(text, name);
  if (found === undefined) {
    const separator = text === '' || text.endsWith('\n') ? '' : '\n';
    return `${text}${separator}${name}=${quoteShell(value)}\n`;
  }
  if (found.value === value) return text;
  // initramfs.conf and its like are written without quotes where none are needed; keep that look.
  const bare = /^[\w@%+=:,./-]+$/.test(value) && !/^["']/.test(text.slice(found.start, found.end));
  return text.slice(0, found.start) + (bare ? value : quoteShell(value)) + text.slice(found.end);
}

/** Removes every line that assigns `name`, where the assignment is all the line has. */
export function unsetVariable(text: string, name: string): string {
  let edited = text;
  for (const found of parseAssignments(text).reverse()) {
    if (found.name !== name) continue;
    const lineStart = edited.lastIndexOf('\n', found.start - 1) + 1;
    const newline = edited.indexOf('\n', found.end);
    const lineEnd = newline === -1 ? edited.length : newline + 1;
    if (edited.slice(found.end, lineEnd).trim().replace(/^#.*/, '') === '') {
      edited = edited.slice(0, lineStart) + edited.slice(lineEnd);
    }
  }
  return edited;
}
