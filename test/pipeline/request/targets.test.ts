import { describe, expect, test } from 'vitest';
import { parseSet, targetsOf } from '../../../pipeline/request/targets.ts';

const AWS = { region: 'eu-central-1' };

describe('--set', () => {
  test('options, groups, values with equal signs, true and false', () => {
    expect(parseSet('aws.region=eu-central-1')).toEqual({
      platform: 'aws',
      path: ['region'],
      value: 'eu-central-1',
    });
    expect(parseSet('aws.tags.owner=a=b').path).toEqual(['tags', 'owner']);
    expect(parseSet('aws.tpm=true').value).toBe(true);
  });

  test.each([
    'aws',
    'aws.=x',
    'aws.region',
    '.x=y',
    'aws.a..b=c',
    'aws.__proto__.x=1',
    'aws.x.constructor=1',
  ])('refused: %s', (text) => {
    expect(() => parseSet(text)).toThrow(expect.objectContaining({ code: 'USAGE' }));
  });
});

describe('targets', () => {
  test('flags win over the file; lists are read; defaults are filled in', () => {
    const targets = targetsOf(
      ['aws'],
      ['aws.copyTo=eu-west-1,us-east-1', 'aws.onExists=fail', 'aws.tags.owner=me'],
      { aws: { ...AWS, onExists: 'replace' } },
      true,
    );
    expect(targets.aws).toMatchObject({
      ...AWS,
      copyTo: ['eu-west-1', 'us-east-1'],
      onExists: 'fail',
      tags: { owner: 'me' },
      shareWith: [],
    });
  });

  test.each([
    [['aws'], ['aws.region=eu-central-1', 'aws.regoin=x'], /regoin/],
    [['aws'], ['aws.tpm=true'], /region/],
    [['qemu'], ['aws.region=eu-central-1'], /not in --to/],
    [['qemu'], ['qemu.x=y'], /no upload to qemu/],
    [['aws'], ['aws.region=eu-central-1', 'aws.shareWith=12'], /shareWith/],
  ])('refused: --to %j --set %j', (to, sets, message) => {
    expect(() => targetsOf(to, sets, {}, true)).toThrow(message);
  });

  test('nothing is uploaded with --no-upload, but wrong options are still told', () => {
    expect(targetsOf(['aws'], [], { aws: AWS }, false)).toEqual({});
    expect(() => targetsOf(['aws'], [], { aws: { ...AWS, regio: 'x' } }, false)).toThrow(/regio/);
  });
});
