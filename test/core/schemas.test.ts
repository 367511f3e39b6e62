import * as fs from 'node:fs/promises';
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { buildContract, Contract, Provision } from '../../core/contract.ts';
import {
  DATA_SET_ID,
  type DataSetSummary,
  dataSetId,
  segmentDigests,
  segmentKey,
} from '../../core/data-set.ts';
import { schemaFiles } from '../../scripts/schemas.ts';
import { makeContext, sampleFacts, TreeSession } from '../support/tree-guest.ts';

test('published JSON Schemas are current', async () => {
  for (const [name, text] of schemaFiles())
    expect(await fs.readFile(`schemas/${name}`, 'utf8'), name).toBe(text);
});

test('ids of data sets are clean, stable and differ by name, path and job', () => {
  const any = fc.string({ unit: 'grapheme', maxLength: 80 });
  fc.assert(
    fc.property(any, any, any, any, (name, path, salt, other) => {
      const id = dataSetId(name, path, salt);
      expect(id).toMatch(DATA_SET_ID);
      expect(dataSetId(name, path, salt)).toBe(id);
      if (other !== salt) expect(dataSetId(name, path, other)).not.toBe(id);
    }),
  );
});

test('segment names sort in order and are listed as sha256sum does', () => {
  expect(segmentKey(1)).toBe('segments/000001.tar.zst');
  expect([2, 10, 999999].map(segmentKey).toSorted()).toEqual([2, 10, 999999].map(segmentKey));
  expect(segmentDigests([{ key: 'segments/000001.tar.zst', sha256: 'ab' }])).toBe(
    'ab  segments/000001.tar.zst\n',
  );
});

const summary: DataSetSummary = {
  id: 'shop-srv-app-1',
  path: '/srv/app',
  bytes: 10,
  storedBytes: 5,
  files: 1,
  entries: 2,
  segments: 2,
  manifest: { key: 'shop-srv-app-1/manifest.json', sha256: 'a'.repeat(64) },
  segmentsSha256: 'b'.repeat(64),
  neededBy: ['nginx.service'],
  mode: 'eager',
  rule: 'srv',
  reused: false,
};

test('contract names data, drivers that are really there, and the needed disk', () => {
  const kernel = {
    version: '6.1',
    image: '/boot/vmlinuz-6.1',
    inBootMenu: true,
    isDefault: true,
    builtin: ['virtio_pci'],
    modules: [],
    initramfsModules: ['virtio_blk'],
  };
  const facts = sampleFacts({
    kernels: [kernel, { ...kernel, version: '6.0', builtin: [], inBootMenu: false }],
  });
  const { request } = makeContext({ stage: 'strip', guest: new TreeSession('/x'), facts, platforms: [] });
  const needs = {
    storageModules: ['virtio_blk', 'nvme'],
    networkModules: ['virtio_pci'],
    optionalModules: [],
  };
  const platform = { name: 'p', needs: { ...needs, datasources: ['ConfigDrive'] } } as never;
  const contract = buildContract({
    facts,
    request,
    platforms: [platform],
    dataSets: [summary],
    version: '2026.01.02',
  });
  expect(Contract.parse(contract)).toEqual(contract);
  expect(contract.facts.drivers).toEqual(['virtio_blk', 'virtio_pci']);
  expect(contract.needs.minDiskGiB).toBe(8);
  expect(contract.critical).toEqual(['data']);
  expect(contract.data[0]).toMatchObject({ manifest: `sha256:${'a'.repeat(64)}`, before: ['nginx.service'] });
});

test('provision documents: only http URLs and clean ids', () => {
  expect(Provision.parse({ version: 1, data: { a: { url: 'http://h/x/?sig=1' } } }).data.a?.url).toBe(
    'http://h/x/?sig=1',
  );
  expect(Provision.safeParse({ version: 1, data: { a: { url: 'file:///etc/shadow' } } }).success).toBe(false);
  expect(Provision.safeParse({ version: 1, data: { '../a': { url: 'http://h/' } } }).success).toBe(false);
  expect(Provision.safeParse({ version: 2, data: {} }).success).toBe(false);
});
