/** What the report must say for an image to count as proven. */

import { printable } from '../../core/text.ts';
import type { Check } from '../../core/types.ts';
import type { GuestNetwork } from '../../tools/metadata/network.ts';
import { dataCheck, type ExpectedDataSet } from './data-check.ts';
import { oneLine, type ReportReader } from './report.ts';
import { servicesCheck, unitStates } from './services-check.ts';

/** What the caller knows about the machine the image was made from. */
export interface Expectation {
  /** Data sets the instance must fetch. */
  dataSets: readonly ExpectedDataSet[];
  /** Units that were enabled on the source. */
  services: readonly string[];
  /** Pages the local web server must answer with. */
  pages: readonly { path: string; sha256: string }[];
  /** Mount points on further disks. */
  mounts: readonly string[];
  /** Datasource cloud-init must have found, lower case. */
  datasource: string;
  /** The network the machine was put into. */
  network: Pick<GuestNetwork, 'dhcpStart' | 'host'>;
  /** Whether the platform has the guest agent of QEMU. */
  guestAgent: boolean;
  /** Drivers of the boot disk and of the card, one of each must be in use; empty where any will do. */
  hardware: { disk: readonly string[]; nic: readonly string[] };
  /** Whether the address must come from the platform's DHCP. */
  dhcp: boolean;
  /** Whether that DHCP names a gateway. */
  gateway: boolean;
}

/**
 * Units that look after hardware a virtual machine has not: their failure says nothing about the conversion and is
 * told, not counted.
 */
const HARDWARE_UNITS =
  /^(smartd|smartmontools|mcelog|rasdaemon|thermald|lm-sensors|sensord|ipmi\w*|openipmi|mdmonitor|fancontrol|irqbalance|hddtemp|nvme\w*|fwupd\S*|edac)\b/;

/** All checks, hard each of them. */
export function checksOf(report: ReportReader, agentAlive: string | undefined, expect: Expectation): Check[] {
  return [
    bootCheck(report),
    cloudInitCheck(report, expect.datasource),
    networkCheck(report, expect),
    rootCheck(report),
    ...(expect.mounts.length > 0 ? [mountsCheck(report, expect.mounts)] : []),
    unitsCheck(report),
    servicesCheck(unitStates(report.text('units')), expect),
    ...(expect.dataSets.length > 0 ? [dataCheck(report, expect.dataSets)] : []),
    ...(expect.guestAgent
      ? [
          {
            name: 'guest agent',
            ok: agentAlive !== undefined,
            detail: agentAlive ?? 'the guest agent does not answer on its port',
          },
        ]
      : []),
    ...hardwareChecks(report, expect.hardware),
    ...pageChecks(report, expect.pages),
  ];
}

function bootCheck(report: ReportReader): Check {
  const system = report.text('system');
  const settled = /system=(running|degraded)/.test(system);
  const name = /^PRETTY_NAME=(.*)$/m.exec(report.text('os-release'))?.[1] ?? 'unknown system';
  const seconds = Math.round(Number.parseFloat(report.text('uptime')));
  return {
    name: 'boot',
    ok: settled,
    detail: settled
      ? printable(`${name.replaceAll('"', '')}, kernel ${report.kernel}, up ${seconds} s`).slice(0, 200)
      : `the boot did not settle: ${oneLine(system)}; waiting for ${report.lines('jobs').slice(0, 3).join(', ')}`,
  };
}

function cloudInitCheck(report: ReportReader, datasource: string): Check {
  const result = report.json('cloud-init-result') as
    | { v1?: { datasource?: unknown; errors?: unknown } }
    | undefined;
  const status = report.json('cloud-init-status') as { v1?: Record<string, unknown> } | undefined;
  const found = typeof result?.v1?.datasource === 'string' ? oneLine(result.v1.datasource) : '';
  const errors = new Set<string>();
  const collect = (list: unknown) => {
    if (Array.isArray(list)) for (const e of list.slice(0, 20)) errors.add(oneLine(String(e)));
  };
  collect(result?.v1?.errors);
  for (const part of Object.values(status?.v1 ?? {})) {
    if (typeof part === 'object' && part !== null) collect((part as { errors?: unknown }).errors);
  }
  const right = found.toLowerCase().includes(datasource);
  const problems = [
    ...(result === undefined ? ['it did not finish'] : []),
    ...(result !== undefined && !right ? [`it used ${found || 'no datasource'}`] : []),
    ...errors,
  ];
  return {
    name: 'cloud-init',
    ok: problems.length === 0,
    detail: problems.length === 0 ? `done, ${found}` : problems.slice(0, 5).join('; '),
  };
}

/** The disk and the card the platform has are those the system runs on, by their drivers. */
function hardwareChecks(report: ReportReader, { disk, nic }: Expectation['hardware']): Check[] {
  const lines = report.lines('drivers').map((line) => line.split(' '));
  return [
    { name: 'disk', kind: 'disk', wanted: disk },
    { name: 'network card', kind: 'net', wanted: nic },
  ].flatMap(({ name, kind, wanted }) => {
    if (wanted.length === 0) return [];
    const found = lines.filter(([word]) => word === kind);
    const fits = found.find((words) => words.slice(2).some((w) => wanted.includes(w.replaceAll('-', '_'))));
    const told = found.map((words) => words.slice(1).join(' ')).join(', ') || 'none reported';
    return [{ name, ok: fits !== undefined, detail: printable((fits ?? [told]).join(' ')).slice(0, 200) }];
  });
}

function networkCheck(report: ReportReader, { dhcp, gateway, network }: Expectation): Check {
  const nics = asObjects(report.json('addresses')).filter((nic) => nic.ifname !== 'lo');
  const told = nics.map((nic) => {
    const addresses = asObjects(nic.addr_info)
      .filter((a) => a.family === 'inet')
      .map((a) => `${a.local}/${a.prefixlen}`);
    return { name: String(nic.ifname), addresses };
  });
  const routes = asObjects(report.json('routes')).map((r) => `${r.gateway} on ${r.dev}`);
  const up = told.some((nic) => nic.addresses.some((a) => !dhcp || a.startsWith(`${network.dhcpStart}/`)));
  const ok = up && (!gateway || routes.some((r) => r.startsWith(`${network.host} `)));
  const list = told.map((nic) => `${nic.name} ${nic.addresses.join(' ') || 'without address'}`).join(', ');
  const detail = `${list || 'no network card'}; default route ${routes.join(', ') || 'none'}`;
  return { name: 'network', ok, detail: printable(detail).slice(0, 300) };
}

function rootCheck(report: ReportReader): Check {
  const line = report.lines('mounts')[0] ?? '';
  const [target, source, type, options] = line.split(' ');
  const writable = options?.split(',').includes('rw') ?? false;
  return {
    name: 'root file system',
    ok: target === '/' && writable,
    detail: line === '' ? 'not reported' : `${type} on ${source}, ${writable ? 'writable' : 'READ-ONLY'}`,
  };
}

/** File systems of further disks are where the server had them. */
function mountsCheck(report: ReportReader, wanted: readonly string[]): Check {
  // findmnt writes odd characters as \\xHH
  const decode = (text: string) =>
    Buffer.from(
      text.replace(/\\x([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))),
      'latin1',
    ).toString('utf8');
  const found = new Set(report.lines('disk-mounts').map((line) => decode(line.split(' ')[0] ?? '')));
  const missing = wanted.filter((path) => !found.has(path));
  const ok = missing.length === 0;
  const list = (ok ? wanted : missing).map(printable).join(', ');
  return { name: 'mounts of further disks', ok, detail: ok ? list : `not mounted: ${list}`.slice(0, 400) };
}

function unitsCheck(report: ReportReader): Check {
  const failed = report.lines('failed').map((line) => line.split(/\s+/)[0] ?? '');
  const counted = failed.filter((unit) => !HARDWARE_UNITS.test(unit));
  const excused = failed.filter((unit) => HARDWARE_UNITS.test(unit));
  const note = excused.length > 0 ? ` (without their hardware: ${excused.join(', ')})` : '';
  return {
    name: 'no failed units',
    ok: counted.length === 0,
    detail: (counted.length === 0 ? `none${note}` : `failed: ${counted.join(', ')}${note}`).slice(0, 400),
  };
}

function pageChecks(report: ReportReader, wanted: Expectation['pages']): Check[] {
  const got = new Map<string, { status: string; bytes: string; sha256: string }>();
  for (const line of report.lines('pages')) {
    const [path = '', status = '', bytes = '', sha256 = ''] = line.split(' ');
    got.set(path, { status, bytes, sha256 });
  }
  if (wanted.length === 0) {
    const home = got.get('/');
    if (home === undefined) return [];
    // Nothing to compare with: told for the reader; whatever listens decides what it answers.
    return [
      {
        name: 'local web page',
        ok: home.status !== '000' && home.status !== '0',
        detail: `/ answers ${home.status}, ${home.bytes} bytes, sha256 ${home.sha256}`,
      },
    ];
  }
  return wanted.map(({ path, sha256 }) => {
    const page = got.get(path);
    const same = page?.sha256 === sha256;
    return {
      name: `page ${path}`,
      ok: same,
      detail:
        page === undefined
          ? 'not reported'
          : `${page.status}, sha256 ${page.sha256}${same ? ', identical' : ''}`,
    };
  });
}

function asObjects(value: unknown): Record<string, unknown>[] {
  if (!Array.isArray(value)) return [];
  return value.slice(0, 100).filter((v): v is Record<string, unknown> => typeof v === 'object' && v !== null);
}
