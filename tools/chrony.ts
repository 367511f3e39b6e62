/** chrony.conf (man chrony.conf): time sources of one platform taken out, a folder of configuration added. */

const BEGIN = '# Added by port-image: clocks of the platform the machine finds itself on.';
/** Folder whose `*.conf` are read. chronyd's AppArmor profiles allow everything below /etc/chrony. */
export const CLOCK_FOLDER = '/etc/chrony/port-image.d';

/** Addresses that answer on one cloud only: EC2 and Azure's host, Google, Alibaba. */
const FOREIGN_SERVERS: readonly RegExp[] = [
  /^169\.254\.169\.(?:123|254)$/,
  /^fd00:ec2::123$/,
  /^metadata(?:\.google\.internal)?$/,
  /^ntp\.cloud\.aliyuncs\.com$/,
  /^100\.100\.\d+\.\d+$/,
];

/** True for a line only one platform understands; a PHC device that is missing even ends chronyd. */
function isForeign(line: string): boolean {
  const [directive = '', what = '', device = ''] = line.trim().split(/\s+/);
  if (directive.toLowerCase() === 'refclock')
    return what.toUpperCase() === 'PHC' && /^\/dev\/ptp/.test(device);
  return (
    ['server', 'peer', 'pool'].includes(directive.toLowerCase()) && FOREIGN_SERVERS.some((s) => s.test(what))
  );
}

/** True when a line names a place time comes from. */
export function hasTimeSource(text: string): boolean {
  return text.split('\n').some((l) => /^\s*(?:server|pool|peer|refclock)\s/i.test(l));
}

/** Comments out the time sources of the platform the server leaves. Doing it again changes nothing. */
export function withoutForeignClocks(text: string): string {
  return text
    .split('\n')
    .map((line) =>
      isForeign(line) ? `# port-image: only on the platform the server comes from: ${line.trim()}` : line,
    )
    .join('\n');
}

/** Makes chronyd (4.0 or newer) read the folder, behind everything else. Doing it again changes nothing. */
export function withClockFolder(text: string): string {
  if (text.split('\n').includes(`confdir ${CLOCK_FOLDER}`)) return text;
  return `${text.replace(/\n*$/, text.trim() === '' ? '' : '\n\n')}${BEGIN}\nconfdir ${CLOCK_FOLDER}\n`;
}

/** Adds a pool where no source is left. */
export function withPool(text: string, pool: string): string {
  return `${text.replace(/\n*$/, text.trim() === '' ? '' : '\n')}pool ${pool} iburst\n`;
}
