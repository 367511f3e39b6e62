/** Gives the guest a network on the other side: by DHCP, or as it was with its cards' names pinned to new ones. */
import * as path from 'node:path';
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import { makeDir, writeJson } from '../../core/files.ts';
import type { Stage, StageContext } from '../../core/stage.ts';
import { applyEdits, mergeEdits, recordEdits, textEdit } from '../../families/edits.ts';
import type { FileEdit } from '../../families/family.ts';
import { CLOUD_CONFIG, cloudConfig, dhcpEdit, dhcpFile, SETTLE } from './dhcp.ts';
import { checkNics, keepEdits } from './keep.ts';
import { type NetworkData, networkData } from './network-data.ts';
import { configurationFiles, isPhysical, primarySystem, RECORD_DIR } from './paths.ts';
import { pinEdits } from './pins.ts';
import { setAside } from './set-aside.ts';
import { leftovers, resolverWarning } from './warnings.ts';

/** What the stage intends. */
export interface NetworkPlan {
  mode: 'dhcp' | 'keep';
  edits: FileEdit[];
  networkData: NetworkData;
}

/** What the stage leaves in the journal. */
export interface NetworkResult {
  mode: 'dhcp' | 'keep';
  /** System that manages the network now. */
  system: string | undefined;
  /** Host path of the rendered old configuration. */
  networkDataFile: string;
  networkData: NetworkData;
}

const DHCP_CLIENTS: readonly string[] = [
  '/sbin/dhclient',
  '/usr/sbin/dhclient',
  '/sbin/udhcpc',
  '/usr/sbin/dhcpcd',
  '/sbin/dhcpcd',
  '/usr/sbin/dhcpcd5',
];

async function hasDhcpClient(ctx: StageContext): Promise<boolean> {
  for (const client of DHCP_CLIENTS) if ((await ctx.guest.kind(client)) !== 'missing') return true;
  return false;
}

async function dhcpEdits(ctx: StageContext, warn: (text: string) => void): Promise<FileEdit[]> {
  const { facts, guest } = ctx;
  const system = primarySystem(facts.network);
  const old = [...configurationFiles(facts.network).values()].flat();
  const edits: FileEdit[] = [];
  for (const file of old) edits.push(...(await setAside(guest, file)));
  if (system === undefined) {
    warn('no network configuration system found in the guest; cloud-init has to configure the network');
  } else {
    const renderer = await netplanRenderer(ctx, old);
    const options = { patterns: facts.os.distro !== 'alpine', renderer };
    // NetworkManager reads ifcfg files too, but one of those names its card; a keyfile fits any.
    const manager = facts.services.some((s) => s.unit === 'NetworkManager.service' && s.enabled);
    const form = system === 'ifcfg' && manager ? 'networkmanager' : system;
    const { path: target } = dhcpFile(form, options);
    const content = await guest.readText(target);
    const existing = new Map(content === undefined ? [] : [[target, content]]);
    edits.push(...dhcpEdit(form, { ...options, existing }));
    if (system === 'ifupdown' && facts.os.init === 'systemd') {
      const settle = await guest.readText(SETTLE.path);
      edits.push(
        ...textEdit(SETTLE.path, settle, SETTLE.text, 'the network comes up after its drivers have loaded'),
      );
    }
    const resolver = await resolverWarning(guest, facts, system);
    if (resolver !== undefined) warn(resolver);
  }
  for (const text of await leftovers(guest, facts, old)) warn(text);
  return edits;
}

async function netplanRenderer(ctx: StageContext, files: readonly string[]): Promise<string | undefined> {
  for (const file of files.filter((f) => f.startsWith('/etc/netplan/'))) {
    const { guest } = ctx;
    const text = (await guest.readText(file)) ?? (await guest.readText(`${RECORD_DIR}${file}`)) ?? '';
    const match = /^\s*renderer:\s*["']?(networkd|NetworkManager)\b/m.exec(text);
    if (match !== null) return match[1];
  }
  return undefined;
}

async function makePlan(ctx: StageContext, warn: (text: string) => void): Promise<NetworkPlan> {
  const { facts, guest, request } = ctx;
  const keep = request.network === 'keep';
  if (keep) checkNics(facts, request.nics);
  const edits = keep ? await keepEdits(guest, facts, request.nics) : await dhcpEdits(ctx, warn);
  edits.push(...(await pinEdits(guest, facts.network, keep ? request.nics.map((n) => n.mac) : [])));
  const config = cloudConfig(primarySystem(facts.network), keep);
  const before = await guest.readText(CLOUD_CONFIG);
  if (config !== undefined && before !== config) {
    edits.push({ path: CLOUD_CONFIG, before, after: config, why: 'what cloud-init does with the network' });
  }
  return {
    mode: request.network,
    edits: mergeEdits(edits),
    networkData: networkData(facts.network, isPhysical),
  };
}

/** The stage. */
export const stage: Stage<NetworkPlan, NetworkResult> = {
  name: 'network',
  summary:
    'DHCP instead of the old addresses, or the old configuration on new cards; pins to hardware removed',
  needs: ['inspect'],
  inGuest: true,
  Options: z.object({
    network: z.enum(['dhcp', 'keep']),
    nics: z.array(z.object({ mac: z.string(), name: z.string() })).default([]),
  }),

  async plan(ctx) {
    const plan = await makePlan(ctx, (text) => ctx.warn(text));
    recordEdits(ctx, plan.edits);
    return plan;
  },

  async run(ctx, plan) {
    const { facts } = ctx;
    const system = primarySystem(facts.network);
    // cloud-init has brought its dependencies by now; on Debian a DHCP client is one of them.
    if (plan.mode === 'dhcp' && system === 'ifupdown' && !(await hasDhcpClient(ctx))) {
      throw new PortError('GUEST_BROKEN', 'the guest has ifupdown but no DHCP client', {
        hint: 'install isc-dhcp-client in the guest, or convert with --network keep',
      });
    }
    const now = await makePlan(ctx, (text) => ctx.warn(text));
    await applyEdits(ctx, now.edits);
    await makeDir(ctx.paths.out);
    const networkDataFile = path.join(ctx.paths.out, 'network_data.json');
    await writeJson(networkDataFile, plan.networkData);
    return { mode: plan.mode, system, networkDataFile, networkData: plan.networkData };
  },
};
