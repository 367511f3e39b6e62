/** grub.cfg as grub-mkconfig writes it: which entries boot which kernel, and which is the default. Nothing is run. */

/** A boot entry. */
export interface GrubEntry {
  title: string;
  id: string | undefined;
  /** Place in the menu, such as `0` or `1>2`. */
  position: string;
  /** Kernel path as written, without a device in parentheses. */
  linux: string;
  args: string[];
  initrd: string[];
}

/** What grub.cfg says. */
export interface GrubConfig {
  entries: GrubEntry[];
  /** The entry that boots when nobody chooses, or undefined when there is none. */
  defaultEntry: GrubEntry | undefined;
}

interface Menu {
  title: string;
  id: string | undefined;
  position: string;
  children: (Menu | GrubEntry)[];
}

/** Splits a line into words; quotes group, a backslash escapes, variables stay as written. */
function words(line: string): string[] {
  const found: string[] = [];
  for (const match of line.matchAll(/(?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^\s'"\\])+/g)) {
    found.push(
      match[0].replace(/'([^']*)'|"((?:\\.|[^"\\])*)"|\\(.)/g, (_, single, double, escaped) =>
        single !== undefined ? single : double !== undefined ? double.replace(/\\(.)/g, '$1') : escaped,
      ),
    );
  }
  return found;
}

const withoutDevice = (path: string) => path.replace(/^\([^)]*\)/, '');

function idOf(line: string[]): string | undefined {
  const at = line.findIndex((w) => /^(--id|\$\{?menuentry_id_option\}?)$/.test(w));
  return at === -1 ? line.find((w) => w.startsWith('--id='))?.slice('--id='.length) : line[at + 1];
}

const isMenu = (item: Menu | GrubEntry): item is Menu => 'children' in item;

/** Reads grub.cfg. `saved` is `saved_entry` of grubenv. */
export function parseGrubConfig(text: string, saved?: string): GrubConfig {
  const top: Menu = { title: '', id: undefined, position: '', children: [] };
  const stack: (Menu | GrubEntry | undefined)[] = [];
  let wanted = '0';
  const place = (menu: Menu) => `${menu.position === '' ? '' : `${menu.position}>`}${menu.children.length}`;
  for (const raw of text.split('\n')) {
    const line = raw.trim();
    if (line === '' || line.startsWith('#')) continue;
    if (line === '}') {
      stack.pop();
      continue;
    }
    const [command = '', ...args] = words(line.replace(/\s*\{$/, ''));
    if (line.endsWith('{') && !line.endsWith('${')) {
      const menu = stack.findLast((m): m is Menu => m !== undefined && isMenu(m)) ?? top;
      if (command === 'submenu' || command === 'menuentry') {
        const head = { title: args[0] ?? '', id: idOf(args), position: place(menu) };
        const item: Menu | GrubEntry =
          command === 'submenu' ? { ...head, children: [] } : { ...head, linux: '', args: [], initrd: [] };
        menu.children.push(item);
        stack.push(item);
      } else {
        stack.push(undefined);
      }
      continue;
    }
    const default_ = /^set\s+default=(["']?)(.*)\1$/.exec(line);
    if (default_ !== null && !/next_entry/.test(default_[2] ?? '')) {
      wanted = /saved_entry/.test(default_[2] ?? '') ? (saved ?? '0') : (default_[2] ?? '0');
    }
    const entry = stack.findLast((m): m is GrubEntry => m !== undefined && !isMenu(m));
    if (entry === undefined) continue;
    if (/^linux(16|efi)?$/.test(command) && entry.linux === '') {
      entry.linux = withoutDevice(args[0] ?? '');
      entry.args = args.slice(1);
    } else if (/^initrd(16|efi)?$/.test(command)) {
      entry.initrd.push(...args.map(withoutDevice));
    }
  }
  const entries = allEntries(top).filter((e) => e.linux !== '');
  return { entries, defaultEntry: select(top, wanted) ?? entries[0] };
}

function allEntries(menu: Menu): GrubEntry[] {
  return menu.children.flatMap((c) => (isMenu(c) ? allEntries(c) : [c]));
}

function select(top: Menu, wanted: string): GrubEntry | undefined {
  let at: Menu | GrubEntry | undefined = top;
  for (const key of wanted.split('>')) {
    if (at === undefined || !isMenu(at)) break;
    const { children }: Menu = at;
    at =
      children.find((c) => c.id === key || c.title === key) ??
      (/^\d+$/.test(key) ? children[Number(key)] : undefined);
  }
  while (at !== undefined && isMenu(at)) at = at.children[0];
  return at === undefined || at.linux === '' ? undefined : at;
}

/** Reads grubenv: `name=value` lines. */
export function parseGrubEnv(text: string): Map<string, string> {
  const values = new Map<string, string>();
  for (const line of text.split('\n')) {
    const match = /^([A-Za-z_]\w*)=(.*)$/.exec(line);
    if (match !== null) values.set(match[1] ?? '', match[2] ?? '');
  }
  return values;
}
