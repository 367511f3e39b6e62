import { describe, expect, test } from 'vitest';
import { azure } from '../../../tools/metadata/azure.ts';
import { aliyun, ec2 } from '../../../tools/metadata/ec2.ts';
import { gce } from '../../../tools/metadata/gce.ts';
import { GUEST_NETWORKS } from '../../../tools/metadata/network.ts';
import { oracle } from '../../../tools/metadata/oracle.ts';
import { azureEnvironment, ovfEnvironment } from '../../../tools/metadata/ovf-env.ts';
import type { MetadataService, ServiceMetadata } from '../../../tools/metadata/service.ts';

const META: ServiceMetadata = {
  instanceId: '6d2f0b5e-4c8a-4d5b-9c1f-3c1f2a7e9b04',
  hostname: 'shop01',
  userData: '#cloud-config\n{"a":"<&\\""}\n',
  mac: '52:54:00:12:34:56',
  address: '169.254.2.15',
  net: '169.254.0.0/16',
};

function ask(service: MetadataService, target: string, headers: Record<string, string> = {}, method = 'GET') {
  const url = new URL(`http://x${target}`);
  return service({ method, path: url.pathname, query: url.searchParams, headers, body: '' });
}

describe('EC2', () => {
  test('nothing without a token, and none but its own', () => {
    const service = ec2(META);
    expect(ask(service, '/latest/meta-data/instance-id').status).toBe(401);
    const wrong = { 'x-aws-ec2-metadata-token': 'guess' };
    expect(ask(service, '/latest/user-data', wrong).status).toBe(401);
    expect(ask(service, '/latest/api/token', {}, 'PUT').status).toBe(400);
    expect(ask(service, '/latest/api/token', {}, 'GET').status).toBe(401);
  });

  test('with a token: values, folders, user data, identity', () => {
    const service = ec2(META);
    const ttl = { 'x-aws-ec2-metadata-token-ttl-seconds': '21600' };
    const token = ask(service, '/latest/api/token', ttl, 'PUT').body ?? '';
    const get = (path: string) => ask(service, path, { 'x-aws-ec2-metadata-token': token });
    expect(get('/2021-03-23/meta-data/instance-id').body).toBe(META.instanceId);
    expect(get('/latest/meta-data/').body?.split('\n')).toContain('network/');
    expect(get('/latest/user-data').body).toBe(META.userData);
    expect(JSON.parse(get('/latest/dynamic/instance-identity/document').body ?? '')).toMatchObject({
      instanceId: META.instanceId,
    });
    expect(get('/latest/meta-data/no/such').status).toBe(404);
    expect(get('/latest/meta-data/__proto__').status).toBe(404);
  });
});

test('Alibaba: the same tree without a token', () => {
  expect(ask(aliyun(META), '/2016-01-01/meta-data/hostname').body).toBe('shop01');
});

test('GCE: refused without its header; values, folders and JSON with it; a long poll waits', () => {
  const service = gce(META);
  expect(ask(service, '/computeMetadata/v1/instance/id').status).toBe(403);
  const get = (path: string) => ask(service, path, { 'metadata-flavor': 'Google' });
  expect(get('/computeMetadata/v1/instance/id').body).toMatch(/^\d+$/);
  expect(get('/computeMetadata/v1/instance/').body).toContain('attributes/\n');
  expect(JSON.parse(get('/computeMetadata/v1/instance/attributes/?recursive=True').body ?? '')).toEqual({
    'user-data': META.userData,
  });
  const etag = get('/computeMetadata/v1/').headers?.etag ?? '';
  const poll = get(`/computeMetadata/v1/?recursive=true&wait_for_change=true&last_etag=${etag}`);
  expect(poll.afterMs).toBeGreaterThan(0);
});

test('Oracle: refused without its authorization; user data in base64', () => {
  const service = oracle(META);
  expect(ask(service, '/opc/v2/instance/').status).toBe(403);
  const document = JSON.parse(
    ask(service, '/opc/v2/instance/', { authorization: 'Bearer Oracle' }).body ?? '',
  );
  expect(Buffer.from(document.metadata.user_data, 'base64').toString()).toBe(META.userData);
});

test('Azure: the metadata header is asked for; goal state and health report', () => {
  const service = azure(META);
  expect(ask(service, '/metadata/instance?api-version=2021-08-01').status).toBe(400);
  const found = ask(service, '/metadata/instance?api-version=2021-08-01', { metadata: 'true' });
  expect(JSON.parse(found.body ?? '').network.interface[0].macAddress).toBe('525400123456');
  expect(ask(service, '/machine/?comp=goalstate').body).toContain(`<InstanceId>${META.instanceId}<`);
  expect(ask(service, '/machine?comp=health', {}, 'POST').status).toBe(200);
});

test('environments on a CD hold the user data whole', () => {
  const coded = Buffer.from(META.userData).toString('base64');
  expect(ovfEnvironment(META)).toContain(`oe:key="user-data" oe:value="${coded}"`);
  expect(azureEnvironment({ ...META, hostname: 'a<b' })).toContain('<wa:HostName>a&lt;b</wa:HostName>');
  expect(azureEnvironment(META)).toContain(`<wa:CustomData>${coded}</wa:CustomData>`);
});

test('every network holds the addresses the guest will ask', () => {
  const number = (address: string) => address.split('.').reduce((n, part) => n * 256 + Number(part), 0);
  for (const { net, host, dhcpStart, dns, store, metadata } of Object.values(GUEST_NETWORKS)) {
    const [base = '', bits = ''] = net.split('/');
    const size = 2 ** (32 - Number(bits));
    for (const address of [host, dhcpStart, dns, store, ...metadata]) {
      expect(Math.floor(number(address) / size)).toBe(Math.floor(number(base) / size));
    }
  }
});
