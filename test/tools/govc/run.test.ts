import { expect, test } from 'vitest';
import { documents, parseCollected } from '../../../tools/govc/json.ts';
import { govcError } from '../../../tools/govc/run.ts';

test.each([
  ['/usr/bin/govc: ServerFaultCode: Login failure\n', 'CLOUD_LOGIN', false],
  [
    'govc: ServerFaultCode: Cannot complete login due to an incorrect user name or password.',
    'CLOUD_LOGIN',
    false,
  ],
  ['govc: Post "https://h/sdk": tls: failed to verify certificate: x509: unknown authority', 'CLOUD', false],
  ['govc: Post "https://h/sdk": dial tcp 127.0.0.1:1: connect: connection refused', 'CLOUD', true],
  ['govc: 503 Service Unavailable', 'CLOUD', true],
  ['govc: *types.FileAlreadyExists', 'CLOUD_CONFLICT', false],
  ['govc: ServerFaultCode: Permission to perform this operation was denied.', 'CLOUD_REFUSED', false],
  ['govc: manifest checksum aa mismatch with uploaded checksum bb for file d.vmdk', 'CLOUD_MISMATCH', false],
  ["govc: datastore 'x' not found", 'CONFIG', false],
  ['', 'CLOUD', false],
] as const)('reads the failure %j', (stderr, code, temporary) => {
  expect(govcError('about', stderr)).toMatchObject({ code, temporary });
});

test('reads a fault that is a JSON document, and shows no control bytes', () => {
  const fault = JSON.stringify({ Fault: { Code: 'ServerFaultCode', String: 'Login failure' } }, null, 2);
  expect(govcError('about', fault)).toMatchObject({
    code: 'CLOUD_LOGIN',
    message: 'vSphere, about: Login failure',
  });
  expect(govcError('about', 'govc: \u001b[31mred').message).not.toContain('\u001b');
});

test('splits documents at braces that are not in strings', () => {
  const texts = ['{"a":{"b":"}{\\"}"}}', '{"c":[{},{}]}'];
  expect(documents(`${texts[0]}\n${texts[1]}`)).toEqual(texts);
  expect(documents('')).toEqual([]);
});

test('reads collected objects, and refuses other answers', () => {
  const text =
    '{"kind":"enter","obj":{"type":"VirtualMachine","value":"vm-1"},"changeSet":[{"name":"name","op":"assign","val":"a"}]}';
  expect(parseCollected(text)).toEqual([{ id: 'VirtualMachine:vm-1', values: new Map([['name', 'a']]) }]);
  expect(() => parseCollected('{"Obj":{}}')).toThrow(/another form/);
});
