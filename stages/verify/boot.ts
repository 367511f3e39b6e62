/** One boot of an image, watched from outside until it has reported or nothing more can come. */
import { randomBytes, randomUUID } from 'node:crypto';
import * as path from 'node:path';
import type { Provision } from '../../core/contract.ts';
import { asPortError, PortError } from '../../core/errors.ts';
import { silentLog } from '../../core/log.ts';
import type { MetadataKind } from '../../core/platform.ts';
import { GIB } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import type { InstanceMetadata } from '../../tools/config-drive.ts';
import { probeKvm } from '../../tools/kvm.ts';
import { type MetadataServer, serveMetadata, serviceMetadata } from '../../tools/metadata/index.ts';
import { GUEST_NETWORKS } from '../../tools/metadata/network.ts';
import { AZURE_LABEL, azureEnvironment, OVF_LABEL, ovfEnvironment } from '../../tools/metadata/ovf-env.ts';
import type { ServiceMetadata } from '../../tools/metadata/service.ts';
import { writeFilesIso, writeMetadataIso } from '../../tools/metadata-disk.ts';
import { info } from '../../tools/qemu-img.ts';
import { type Machine, startMachine } from '../../tools/qemu-system.ts';
import { type Diagnosis, diagnose } from './diagnose.ts';
import { ReportReader } from './report.ts';
import { reporterUserData, safeUnits } from './reporter.ts';
import type { VerifyRequest } from './request.ts';

/** MAC of the machine's only card; network_data.json names it. */
const NIC_MAC = '52:54:00:12:34:56';
/** Clouds give instances a larger disk than the image; growth must not harm. */
const GROW_BYTES = GIB;
/** Seconds a boot may take in all. Emulation is about ten times slower. */
const LIMIT_SECONDS = { kvm: 240, tcg: 900 } as const;
/** A console silent for so long, before the reporter has started, will not speak again. */
const SILENCE_SECONDS = { kvm: 60, tcg: 180 } as const;
/** The report itself is written within this time after the guest's own limit. */
const REPORT_SECONDS = 90;
/** Firmware that resets for ever (a boot loader that fails at once) is given up after so many resets. */
const MAX_RESETS = 4;

/** Kinds whose metadata is an `ovf-env.xml` on a CD. */
const ENVIRONMENTS: Readonly<
  Partial<Record<MetadataKind, { label: string; render: (meta: ServiceMetadata) => string }>>
> = {
  ovf: { label: OVF_LABEL, render: ovfEnvironment },
  azure: { label: AZURE_LABEL, render: azureEnvironment },
};

/** Why the watch over a boot ended. */
export type End = { kind: 'report' } | { kind: 'given up'; why: string; seen: Diagnosis };

/** With the firmware found out. */
type KnownRequest = VerifyRequest & { firmware: 'bios' | 'uefi' };

/** One boot, watched until the report ends or nothing more can come. */
export class Boot {
  readonly #request: KnownRequest;
  readonly #base: string;
  readonly #dir: string;
  readonly #document: Provision;
  readonly #kind: MetadataKind;
  readonly #instanceId = randomUUID();
  #service: MetadataServer | undefined;
  readonly #nonce = randomBytes(12).toString('hex');
  readonly #report = new ReportReader(this.#nonce);
  #console = '';
  #lastSign = performance.now();
  #resets = 0;

  constructor(request: KnownRequest, base: string, dir: string, document: Provision) {
    this.#request = request;
    this.#base = base;
    this.#dir = dir;
    this.#document = document;
    this.#kind = request.platform.boot.metadata;
  }

  async watch() {
    const kvm = await probeKvm();
    const accelerator = kvm.usable ? 'kvm' : 'tcg';
    const limit = this.#request.limitSeconds ?? LIMIT_SECONDS[accelerator];
    const machine = await this.#start(accelerator, limit);
    try {
      const end = await this.#untilEnd(machine, limit, SILENCE_SECONDS[accelerator]);
      const hasAgent = this.#request.platform.needs.agents.includes('qemu-guest-agent');
      const agent = end.kind === 'report' && hasAgent ? await this.#askAgent(machine) : undefined;
      const screenshot = await this.#screenshot(machine);
      return {
        report: this.#report,
        end,
        agent,
        screenshot,
        accelerator,
        hasGateway: machine.hasGateway,
        asked: this.#service?.seen() ?? [],
      };
    } finally {
      await machine.stop();
      await this.#service?.close();
    }
  }

  async #start(accelerator: 'kvm' | 'tcg', limit: number): Promise<Machine> {
    const request = this.#request;
    const seed = await this.#seed(limit);
    const service = serviceMetadata(this.#kind, { ...this.#metadata(limit), mac: NIC_MAC });
    const socket = path.join(this.#dir, 'metadata');
    this.#service = await serveMetadata(this.#kind, service, socket);
    const { virtualBytes } = await info({ path: path.resolve(request.image), format: request.format });
    return startMachine({
      image: { path: request.image, format: request.format },
      moreImages: request.moreImages ?? [],
      diskBytes: virtualBytes + GROW_BYTES,
      firmware: request.firmware,
      boot: request.platform.boot,
      accelerator,
      ...(seed === undefined ? {} : { seed }),
      storeSocket: path.join(this.#dir, 'store'),
      network: GUEST_NETWORKS[this.#kind],
      ...(this.#service === undefined ? {} : { metadataSocket: socket }),
      consoleLog: `${this.#base}.log`,
      onReportLine: (line) => {
        this.#lastSign = performance.now();
        const before = this.#report.waiting;
        this.#report.take(line);
        if (this.#report.waiting !== before) request.onProgress?.(this.#report.waiting);
      },
      onConsole: (text) => {
        this.#lastSign = performance.now();
        this.#console = (this.#console + text).slice(-256 * 1024);
      },
      onEvent: (name) => {
        if (name === 'RESET') this.#resets++;
      },
      signal: request.signal,
      log: request.log ?? silentLog,
      ...(request.scratch === undefined ? {} : { scratch: request.scratch }),
      ...(request.directKernel === undefined ? {} : { directKernel: request.directKernel }),
    });
  }

  /** A disk with the metadata, for platforms that attach one. */
  async #seed(limit: number): Promise<string | undefined> {
    const { signal } = this.#request;
    const seed = path.join(this.#dir, 'seed.iso');
    const meta = this.#metadata(limit);
    const environment = ENVIRONMENTS[this.#kind];
    if (environment !== undefined) {
      const content = environment.render(serviceMetadata(this.#kind, { ...meta, mac: NIC_MAC }));
      await writeFilesIso(seed, environment.label, [['ovf-env.xml', content]], signal);
      return seed;
    }
    if (this.#kind !== 'config-drive' && this.#kind !== 'nocloud') return undefined;
    await writeMetadataIso(seed, this.#kind, meta, signal);
    return seed;
  }

  #metadata(limit: number): InstanceMetadata & { userData: string } {
    const { dataSets = [], hostname = 'port-image-verify', services = [], pages = [] } = this.#request;
    // Without vendor data of its own a platform has the user data alone.
    const hasVendorData = this.#kind === 'config-drive' || this.#kind === 'nocloud';
    return {
      instanceId: this.#instanceId,
      hostname: /^[A-Za-z0-9-]{1,63}$/.test(hostname) ? hostname : 'port-image-verify',
      networkData: {
        links: [{ id: 'port0', type: 'phy', ethernet_mac_address: NIC_MAC, mtu: 1500 }],
        networks: [{ id: 'network0', type: 'ipv4_dhcp', link: 'port0', network_id: 'verify' }],
        services: [],
      },
      vendorData: {
        port_image: this.#document,
      },
      userData: reporterUserData({
        nonce: this.#nonce,
        limitSeconds: Math.max(30, limit - REPORT_SECONDS),
        waitForData: dataSets.some((d) => d.mode !== 'manual'),
        units: safeUnits([...dataSets.flatMap((d) => d.neededBy), ...services]),
        pages: pages.map((p) => p.path),
        mounts: (this.#request.mounts ?? []).length > 0,
        ...(hasVendorData ? {} : { provision: this.#document }),
      }),
    };
  }

  async #untilEnd(machine: Machine, limit: number, silence: number): Promise<End> {
    const started = performance.now();
    let exited: string | undefined;
    machine.exited.then(
      (end) => {
        exited =
          end.stderr.trim() === '' ? 'the guest switched the machine off' : printable(end.stderr).slice(-300);
      },
      (error: unknown) => {
        exited = asPortError(error).message;
      },
    );
    let finalSince: number | undefined;
    let loginSince: number | undefined;
    for (;;) {
      if (this.#request.signal?.aborted) throw new PortError('INTERRUPTED', 'the verification was stopped');
      if (this.#report.ended) return { kind: 'report' };
      const now = performance.now();
      const seen = diagnose(this.#console);
      const giveUp = (why: string): End => ({ kind: 'given up', why, seen });
      if (exited !== undefined) return giveUp(`the machine ended: ${exited}`);
      if (this.#resets > MAX_RESETS) return giveUp(`the machine restarted ${this.#resets} times`);
      // Messages after the sign are worth a moment: they name the cause.
      finalSince = seen.final ? (finalSince ?? now) : undefined;
      if (finalSince !== undefined && this.#report.kernel === '' && now - finalSince > 3_000) {
        return giveUp('the system did not come up');
      }
      if (seen.login) loginSince ??= now;
      if (loginSince !== undefined && this.#report.kernel === '' && now - loginSince > silence * 1000) {
        return giveUp('cloud-init did not run the user data');
      }
      if (now - started > limit * 1000) return giveUp(`no report within ${limit} s`);
      if (this.#report.kernel === '' && now - this.#lastSign > silence * 1000) {
        return giveUp(`nothing happened for ${silence} s`);
      }
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }

  /** The agent's own words, not what the guest says about it. */
  async #askAgent(machine: Machine): Promise<string | undefined> {
    const id = randomBytes(4).readUInt32BE();
    try {
      const answer = await machine.agent.request('guest-sync', { id }, 15_000);
      if (answer !== id) return undefined;
      await machine.agent.request('guest-ping', {}, 15_000);
      const about = (await machine.agent.request('guest-info', {}, 15_000)) as
        | { version?: unknown }
        | undefined;
      return `answers, version ${printable(String(about?.version ?? 'unknown')).slice(0, 40)}`;
    } catch (error) {
      this.#request.log?.warn('guest agent', { error: asPortError(error).message });
      return undefined;
    }
  }

  async #screenshot(machine: Machine): Promise<string | undefined> {
    const file = `${this.#base}.png`;
    return machine.screenshot(file).then(
      () => file,
      () => undefined,
    );
  }
}
