/** Boots an image on a platform's hardware and asks it for proof. */
import { mkdtemp, rm } from 'node:fs/promises';
import * as path from 'node:path';
import { PortError } from '../../core/errors.ts';
import { makeDir, writeJson } from '../../core/files.ts';
import type { Check, Verification } from '../../core/types.ts';
import { GUEST_NETWORKS } from '../../tools/metadata/network.ts';
import { shortTmpdir } from '../../tools/qemu-system.ts';
import { Boot, type End } from './boot.ts';
import { checksOf } from './checks.ts';
import { claimsOf, hardwareOf } from './claims.ts';
import type { ExpectedDataSet } from './data-check.ts';
import { openDataSource } from './data-source.ts';
import { firmwareOf } from './firmware-of.ts';
import type { ReportReader } from './report.ts';
import type { VerifyRequest } from './request.ts';
import { lazyAccess, timeToService } from './timing.ts';

/**
 * Boots the image once and checks what it reports. A boot that fails is a result (`verified: false`), not an error;
 * errors are for this machine: PROGRAM_MISSING, PROGRAM_FAILED, HOST_IO, INTERRUPTED, CONFIG.
 */
export async function verifyImage(request: VerifyRequest): Promise<Verification> {
  const started = performance.now();
  await makeDir(request.logs);
  const dir = await mkdtemp(path.join(shortTmpdir(), 'port-image-verify-'));
  const base = path.join(request.logs, `verify-${request.platform.name}`);
  const dataSets = expectedDataSets(request);
  const firmware = request.firmware ?? (await firmwareOf({ path: request.image, format: request.format }));
  const { boot: profile, needs } = request.platform;
  const network = GUEST_NETWORKS[profile.metadata];
  const source = await openDataSource({ ...request, dataSets }, path.join(dir, 'store'), network.store);
  try {
    const boot = new Boot({ ...request, firmware, dataSets }, base, dir, source.document);
    const { report, end, agent, screenshot, accelerator, hasGateway, asked } = await boot.watch();
    const checks =
      end.kind === 'report'
        ? checksOf(report, agent, {
            dataSets,
            services: request.services ?? [],
            pages: request.pages ?? [],
            mounts: request.mounts ?? [],
            datasource: profile.datasource,
            network,
            guestAgent: needs.agents.includes('qemu-guest-agent'),
            hardware: hardwareOf(profile, firmware),
            dhcp: request.dhcp ?? true,
            gateway: hasGateway && (request.dhcp ?? true),
          })
        : [failedBoot(end, report)];
    const claims = claimsOf(request.platform, firmware, checks, request.listings);
    const verification: Verification = {
      platform: request.platform.name,
      verified: checks.every((c) => c.ok) && claims.every((c) => c.proof !== 'missing'),
      checks,
      claims,
      seconds: Number(((performance.now() - started) / 1000).toFixed(1)),
      serialLog: `${base}.log`,
      ...(screenshot === undefined ? {} : { screenshot }),
      ...(dataSets.length === 0
        ? {}
        : { timeToService: timeToService(report), lazyAccess: lazyAccess(report) }),
    };
    await writeJson(`${base}.json`, {
      schema: 'port-image/verification/1',
      ...verification,
      image: request.image,
      accelerator,
      storeBytes: source.sentBytes(),
      report,
      metadataRequests: asked,
    });
    return verification;
  } finally {
    await source.close();
    await rm(dir, { recursive: true, force: true });
  }
}

/** What must be there in the end: of a lone image with a minted document, all that the document names. */
function expectedDataSets({ dataSets, provision }: VerifyRequest): readonly ExpectedDataSet[] {
  const ids = Object.keys(provision?.data ?? {});
  return dataSets ?? ids.map((id) => ({ id, path: id, neededBy: [] }));
}

function failedBoot(end: Extract<End, { kind: 'given up' }>, report: ReportReader): Check {
  const state = report.waiting === '' ? '' : `; the guest last said: ${report.waiting}`;
  return { name: 'boot', ok: false, detail: `${end.why}; last seen: ${end.seen.seen}${state}` };
}

/** The error for an image that did not prove itself. Its message names the first failed check, or else the first missing claim. */
export function verifyFailed(failed: readonly Verification[]): PortError {
  const words = failed.map((v) => {
    const first = v.checks.find((c) => !c.ok) ?? v.claims?.find((c) => c.proof === 'missing');
    return `${v.platform}: ${first === undefined ? 'no checks' : `${first.name}: ${first.detail}`}`;
  });
  const log = failed[0]?.serialLog;
  return new PortError('VERIFY_FAILED', `the image did not prove itself on ${words.join('; ')}`, {
    ...(log === undefined ? {} : { hint: `serial log: ${log}` }),
  });
}
