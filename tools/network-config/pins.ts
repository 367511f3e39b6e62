/** udev rules that pin a name to a MAC, and resolv.conf. */
import { addAll, type ConfigFile, listOf, macAddress } from './shared.ts';

/** A name pinned to hardware. */
export interface Pin {
  file: string;
  mac: string;
  name: string;
}

/** Reads rules such as those of `70-persistent-net.rules`. */
export function readUdevPins(files: readonly ConfigFile[]): Pin[] {
  return files.flatMap(({ path, text }) =>
    text
      .replace(/\\\n/g, ' ')
      .split('\n')
      .flatMap((line) => {
        if (/^\s*#/.test(line) || !/SUBSYSTEM=="net"/.test(line)) return [];
        const mac = macAddress(/ATTR(?:S)?\{address\}=="([^"]*)"/.exec(line)?.[1] ?? '');
        const name = /\bNAME:?="([^"]*)"/.exec(line)?.[1];
        return mac === undefined || !name ? [] : [{ file: path, mac, name }];
      }),
  );
}

/** Reads resolv.conf. */
export function readResolvConf(text: string): { dns: string[]; searchDomains: string[] } {
  const dns: string[] = [];
  const searchDomains: string[] = [];
  for (const line of text.split('\n')) {
    const [key, ...rest] = line
      .replace(/[#;].*$/, '')
      .trim()
      .split(/\s+/);
    if (key === 'nameserver') addAll(dns, rest.slice(0, 1));
    if (key === 'search' || key === 'domain') addAll(searchDomains, listOf(rest.join(' ')));
  }
  return { dns, searchDomains };
}
