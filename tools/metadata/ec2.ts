/**
 * Amazon's instance metadata service, version 2 only: a token first
 * (docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html). Alibaba's has the same tree at
 * another address and without tokens (alibabacloud.com/help/en/ecs/user-guide/view-instance-metadata).
 */
import { randomBytes } from 'node:crypto';
import {
  type MetadataAnswer,
  type MetadataService,
  NOT_FOUND,
  type ServiceMetadata,
  type Tree,
  text,
  treeAnswer,
} from './service.ts';

const VERSION = /^\/(latest|\d{4}-\d{2}-\d{2}|1\.0)(\/.*)?$/;

function tree(meta: ServiceMetadata): Tree {
  return {
    'ami-id': 'ami-0123456789abcdef0',
    hostname: meta.hostname,
    'instance-id': meta.instanceId,
    'instance-type': 'm5.large',
    'local-hostname': meta.hostname,
    'local-ipv4': meta.address,
    mac: meta.mac,
    network: {
      interfaces: {
        macs: {
          [meta.mac]: {
            'device-number': '0',
            'local-ipv4s': meta.address,
            mac: meta.mac,
            'subnet-ipv4-cidr-block': meta.net,
          },
        },
      },
    },
    placement: { 'availability-zone': 'eu-central-1a', region: 'eu-central-1' },
    'security-groups': 'default',
  };
}

function answer(path: string, meta: ServiceMetadata, identity: object): MetadataAnswer {
  const [, , rest = '/'] = VERSION.exec(path) ?? [];
  if (!VERSION.test(path)) return path === '/' ? text('latest') : NOT_FOUND;
  if (rest === '/' || rest === '') return text('dynamic\nmeta-data\nuser-data');
  if (rest === '/user-data') return text(meta.userData, 'application/octet-stream');
  if (rest === '/dynamic/instance-identity/document') {
    return text(JSON.stringify(identity), 'application/json');
  }
  if (rest === '/dynamic/instance-identity' || rest === '/dynamic/instance-identity/')
    return text('document');
  if (rest === '/meta-data' || rest.startsWith('/meta-data/')) {
    return treeAnswer(tree(meta), rest.slice('/meta-data'.length));
  }
  return NOT_FOUND;
}

/** IMDSv2: without a token of this service everything but the token is 401. */
export function ec2(meta: ServiceMetadata): MetadataService {
  const tokens = new Set<string>();
  const identity = {
    accountId: '123456789012',
    architecture: 'x86_64',
    availabilityZone: 'eu-central-1a',
    imageId: 'ami-0123456789abcdef0',
    instanceId: meta.instanceId,
    instanceType: 'm5.large',
    privateIp: meta.address,
    region: 'eu-central-1',
    version: '2017-09-30',
  };
  return ({ method, path, headers }) => {
    if (method === 'PUT' && path === '/latest/api/token') {
      const seconds = headers['x-aws-ec2-metadata-token-ttl-seconds'];
      if (typeof seconds !== 'string' || !/^\d{1,5}$/.test(seconds)) return { status: 400 };
      const token = randomBytes(32).toString('base64');
      tokens.add(token);
      return { ...text(token), headers: { 'x-aws-ec2-metadata-token-ttl-seconds': seconds } };
    }
    if (method !== 'GET' && method !== 'HEAD') return { status: 405 };
    const token = headers['x-aws-ec2-metadata-token'];
    if (typeof token !== 'string' || !tokens.has(token)) return { status: 401 };
    return answer(path, meta, identity);
  };
}

/** Alibaba's. */
export function aliyun(meta: ServiceMetadata): MetadataService {
  const identity = { 'instance-id': meta.instanceId, 'region-id': 'eu-central-1', mac: meta.mac };
  return ({ method, path }) =>
    method === 'GET' || method === 'HEAD' ? answer(path, meta, identity) : { status: 405 };
}
