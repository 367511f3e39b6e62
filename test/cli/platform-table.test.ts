import { describe, expect, test } from 'vitest';
import { platformTable, proofText } from '../../cli/platform-table.ts';
import type { Claim } from '../../core/types.ts';
import type { Summary } from '../../pipeline/summary.ts';

type Output = Summary['outputs'][number];
const claim = (name: string, proof: Claim['proof']): Claim => ({ name, proof, detail: '' });
const check = (name: string, ok = true) => ({ name, ok, detail: '' });

function output(platform: string, more: Partial<Output> = {}): Output {
  return {
    platform,
    path: `/job/out/${platform}`,
    format: 'qcow2',
    compared: true,
    bytes: 3 * 1024 ** 2,
    virtualBytes: 2 * 1024 ** 3,
    sha256: '',
    verified: false,
    verification: [],
    claims: [],
    timeToService: [],
    lazyAccess: [],
    ...more,
  };
}

describe('proof in words', () => {
  test('claims are counted by how they were proven', () => {
    const claims = [claim('a', 'booted'), claim('b', 'booted'), claim('c', 'listed'), claim('d', 'unproven')];
    expect(proofText({ verification: [check('ssh')], claims })).toBe('booted 2, listed 1, 1 not proven');
  });
  test('without a boot it says so', () => {
    expect(proofText({ verification: [], claims: [] })).toBe('not booted');
  });
  test('checks of an older job have no claims', () => {
    expect(proofText({ verification: [check('ssh')], claims: [] })).toBe('booted, 1 checks');
  });
  test('failed checks and missing claims are named, and hide the counts', () => {
    const claims = [claim('kernel', 'booted'), claim('NVMe disk', 'missing')];
    expect(proofText({ verification: [check('ssh', false)], claims })).toBe('FAILED: ssh, NVMe disk');
  });
});

describe('table of platforms', () => {
  const image: Summary['cloudImages'][number] = {
    platform: 'aws',
    place: 'eu-central-1',
    id: 'ami-1',
    name: 'demo',
    method: 'ebs-direct',
    bytes: 1,
    sentBytes: 1,
    content: 'ok',
    proof: '',
    replaced: [],
    start: '',
    disks: [],
    details: {},
  };
  test('none for one platform with a further disk', () => {
    const outputs = [output('aws'), output('aws', { disk: 'data' })];
    expect(platformTable({ outputs, cloudImages: [image] })).toEqual([]);
  });
  test('one line each: container, comparison, upload', () => {
    const outputs = [
      output('aws', { format: 'raw' }),
      output('gcp', { format: 'raw', container: 'gce-tar', compared: false }),
      output('gcp', { disk: 'data' }),
    ];
    const lines = platformTable({ outputs, cloudImages: [image] }, 200).map((l) => l.split(/ {2,}/));
    expect(lines).toEqual([
      ['platform', 'image', 'compared', 'proof', 'uploaded to', 'registered as'],
      ['aws', expect.stringMatching(/^raw, 3/), 'yes', 'not booted', 'eu-central-1', 'ami-1'],
      ['gcp', expect.stringMatching(/^raw in gce-tar, 3/), 'no', 'not booted', '-', '-'],
    ]);
  });
});
