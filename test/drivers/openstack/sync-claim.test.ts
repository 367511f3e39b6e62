import { describe, expect, test } from 'vitest';
import type { CreateInput } from '../../../core/sync/types.ts';
import { claim, whileAlive } from '../../../drivers/openstack/sync/claim.ts';
import { imageUuid, MARK } from '../../../drivers/openstack/sync/marks.ts';
import type { GlanceApi } from '../../../tools/openstack/glance.ts';
import type { GlanceImage } from '../../../tools/openstack/glance-types.ts';
import { syncContext } from '../../support/sync-context.ts';

const identity = { series: 'web', version: '1', rawSha256: 'a'.repeat(64) };
const PROJECT = 'ours';

/** As much of Glance as a claim uses. */
class Images {
  readonly images = new Map<string, GlanceImage>();
  readonly patched: string[] = [];
  readonly removed: string[] = [];

  async create(image: Record<string, unknown>): Promise<GlanceImage> {
    const id = String(image.id);
    const known = this.images.get(id);
    if (known !== undefined) return known;
    const made = { ...image, status: 'queued', owner: PROJECT, os_hidden: false } as unknown as GlanceImage;
    this.images.set(id, made);
    return made;
  }

  async patch(id: string): Promise<GlanceImage> {
    this.patched.push(id);
    return this.images.get(id) as GlanceImage;
  }

  async remove(id: string): Promise<void> {
    this.removed.push(id);
  }
}

function inputOf(): CreateInput {
  return {
    ...syncContext(),
    identity,
    image: { minRamMib: 0 },
    owner: 'run@host/1',
    staleAfterMs: 900_000,
  } as unknown as CreateInput;
}

const foreign = (more: Record<string, unknown>) =>
  ({
    id: imageUuid('nightly', identity, 0),
    owner: 'somebody-else',
    visibility: 'community',
    status: 'active',
    os_hidden: false,
    created_at: '2026-01-01T00:00:00Z',
    [MARK.sync]: 'nightly',
    [MARK.series]: 'web',
    [MARK.version]: '1',
    [MARK.raw]: identity.rawSha256,
    ...more,
  }) as unknown as GlanceImage;

describe('an image of another project under the id of ours', () => {
  test.each([
    { [MARK.state]: 'complete' },
    { [MARK.state]: 'in-progress', [MARK.owner]: 'other@host/1', [MARK.alive]: '' },
    { [MARK.state]: 'in-progress', [MARK.owner]: 'other@host/1', [MARK.alive]: new Date().toISOString() },
    { [MARK.state]: 'in-progress', [MARK.owner]: 'run@host/1', [MARK.alive]: '' },
  ])('is neither adopted nor touched nor waited for: %o', async (marks) => {
    const glance = new Images();
    glance.images.set(imageUuid('nightly', identity, 0), foreign(marks));
    const claimed = await claim(glance as unknown as GlanceApi, {
      sync: 'nightly',
      create: inputOf(),
      format: 'qcow2',
      minDiskGib: 1,
      projectId: PROJECT,
      now: () => new Date(),
    });
    expect(claimed.kind).toBe('ours');
    expect(claimed.image.id).toBe(imageUuid('nightly', identity, 1));
    expect(glance.removed).toEqual([]);
    expect(glance.patched).toEqual([]);
  });
});

test('an image of ours that an operator has deactivated is there: neither removed nor made again', async () => {
  const glance = new Images();
  const image = foreign({ owner: PROJECT, status: 'deactivated', [MARK.state]: 'complete' });
  glance.images.set(image.id, image);
  for (const owner of ['run@host/1', 'other@elsewhere/2']) {
    const create = { ...inputOf(), owner };
    const claimed = await claim(glance as unknown as GlanceApi, {
      sync: 'nightly',
      create,
      format: 'qcow2',
      minDiskGib: 1,
      projectId: PROJECT,
      now: () => new Date(),
    });
    expect(claimed).toMatchObject({ kind: 'there', image: { id: image.id } });
  }
  expect(glance.removed).toEqual([]);
});

test('a host whose clock runs ahead takes nobody for dead: the cloud’s clock counts', async () => {
  const glance = new Images();
  const cloudsClock = new Date('2020-01-01T12:00:00Z');
  const alive = { [MARK.owner]: 'other@host/2', [MARK.alive]: '2020-01-01T11:59:00Z' };
  const image = foreign({ owner: PROJECT, status: 'queued', [MARK.state]: 'in-progress', ...alive });
  glance.images.set(image.id, image);
  const claiming = claim(glance as unknown as GlanceApi, {
    sync: 'nightly',
    create: inputOf(),
    format: 'qcow2',
    minDiskGib: 1,
    projectId: PROJECT,
    now: () => cloudsClock,
  });
  await expect(claiming).rejects.toMatchObject({ code: 'SYNC_BUSY' });
  expect(glance.removed).toEqual([]);
});

test('signs of life are of the image that is made now, not of the one it was begun with', async () => {
  const glance = new Images();
  let id = 'first';
  await whileAlive(
    glance as unknown as GlanceApi,
    () => id,
    { ...inputOf(), staleAfterMs: 60, now: () => new Date() },
    async () => {
      await new Promise((resolve) => setTimeout(resolve, 50));
      id = 'second';
      await new Promise((resolve) => setTimeout(resolve, 50));
    },
  );
  expect(glance.patched[0]).toBe('first');
  expect(glance.patched.at(-1)).toBe('second');
});
