import { expect, test } from 'vitest';
import { PortError } from '../../../core/errors.ts';
import { ebsError, isInvalid } from '../../../tools/ebs/errors.ts';

const sdkError = (name: string, status?: number) =>
  Object.assign(new Error('words'), { name, $metadata: { httpStatusCode: status } });

test.each([
  ['RequestThrottledException', 400, true],
  ['ThrottlingException', 403, true],
  ['ConcurrentLimitExceededException', 400, true],
  ['InternalServerException', 500, true],
  ['Error', 502, true],
  ['TimeoutError', undefined, true],
  ['Error', undefined, true],
  ['CredentialsProviderError', undefined, false],
  ['TokenProviderError', undefined, false],
  ['InvalidSignatureException', 403, false],
  ['ExpiredToken', 400, false],
  ['Forbidden', 403, false],
  ['ResourceNotFoundException', 404, false],
  ['ValidationException', 400, false],
  ['Teapot', 418, false],
])('%s with status %s: temporary is %s', (name, status, temporary) => {
  const error = ebsError(sdkError(name, status), 'ebs://r/snap-1');
  expect(error).toMatchObject({
    code: 'SOURCE_REMOTE',
    temporary,
    message: `ebs://r/snap-1: ${name}: words`,
  });
  expect(error.hint).toBeTruthy();
  expect(isInvalid(error)).toBe(name === 'ValidationException');
});

test('an error that has its code keeps it; a long text is cut', () => {
  const own = new PortError('INTERRUPTED', 'stopped');
  expect(ebsError(own, 'x')).toBe(own);
  expect(isInvalid(own)).toBe(false);
  const long = Object.assign(new Error('a'.repeat(10_000)), { name: 'Error' });
  expect(ebsError(long, 'x').message.length).toBeLessThan(320);
});
