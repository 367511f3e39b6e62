/** Agents of the platform the server comes from, which would idle or fail elsewhere. */
import type { Facts } from '../../core/facts.ts';
import type { StageContext } from '../../core/stage.ts';
import type { Family } from '../../families/family.ts';
import type { UnitedNeeds } from './needs.ts';

/** Platforms, other than the one an agent is named after, on the same hypervisor: it stays when one of them is chosen. */
const SERVES: Readonly<Record<string, readonly string[]>> = {
  kvm: ['qemu', 'openstack', 'oci', 'alibaba'],
  qemu: ['openstack', 'oci', 'alibaba'],
  hyperv: ['azure'],
};

function serves(agent: string, targets: ReadonlySet<string>): boolean {
  // `any` is what serves every platform, such as cloud-init.
  return agent === 'any' || [agent, ...(SERVES[agent] ?? [])].some((name) => targets.has(name));
}

/** Packages to remove; the rest is told with `warn`. */
export function agentsToRemove(
  ctx: Pick<StageContext, 'facts' | 'platforms'>,
  family: Family,
  needs: UnitedNeeds,
  warn: (text: string) => void,
): string[] {
  const facts: Facts = ctx.facts;
  const targets = new Set(ctx.platforms.map((p) => p.name));
  const wanted = new Set(needs.agents.flatMap((role) => family.packagesFor(role, facts)));
  const installed = new Set(facts.packages.map((p) => p.name));
  const names = new Set<string>();
  for (const agent of facts.agents) {
    if (serves(agent.platform, targets)) continue;
    if (agent.package === undefined) {
      warn(
        `${agent.path ?? agent.platform}: tools of ${agent.platform} installed without a package; not removed`,
      );
      continue;
    }
    if (wanted.has(agent.package) || !installed.has(agent.package)) continue;
    const dependant = family.keepsPackage(agent.package, facts);
    if (dependant === undefined) names.add(agent.package);
    else warn(`${agent.package} stays, because ${dependant} depends on it`);
  }
  return [...names].sort();
}
