import fc from 'fast-check';
import { expect, test } from 'vitest';
import { PortError } from '../../../core/errors.ts';
import { otherDigest, percentOf } from '../../../drivers/vmware/import.ts';
import { noteText, readNote } from '../../../drivers/vmware/notes.ts';
import { VmwareOptions } from '../../../drivers/vmware/options.ts';

const note = { mark: 'ab12', state: 'complete', file: 'ff', content: 'ok' } as const;

test('a note reads back, whatever is in the fields', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.string(), (version, source) => {
      const read = readNote(noteText('shop', { ...note, version, source }));
      expect(read).toMatchObject(note);
    }),
  );
});

test('a field cannot forge another one', () => {
  const text = noteText('shop', { ...note, id: 'x\nport-image.mark: evil', state: 'importing' });
  expect(readNote(text)).toMatchObject({ mark: 'ab12', state: 'importing' });
  expect(readNote(`${text}\nport-image.state: complete`)?.state).toBe('importing');
});

test.each([undefined, null, 7, '', 'a template of somebody', 'port-image.state: complete'])(
  'an annotation of others is not ours: %j',
  (annotation) => expect(readNote(annotation)).toBeUndefined(),
);

test('progress is the last percentage written', () => {
  expect(percentOf('\r[x] Uploading d.vmdk... (3%, 1MiB/s)\r[x] Uploading d.vmdk... (41%, 2MiB/s)')).toBe(41);
  expect(percentOf('Uploading d.vmdk... OK\n')).toBeUndefined();
});

test.each([
  ['manifest checksum aa mismatch with uploaded checksum  for file d.vmdk', true],
  ['manifest checksum type SHA256 mismatch with uploaded checksum type  for file d.vmdk', true],
  ['missing manifest entry on server for uploaded file d.vmdk', true],
  ['manifest checksum aa mismatch with uploaded checksum bb for file d.vmdk', false],
])('a missing digest is told from a wrong one: %s', (message, other) => {
  expect(otherDigest(new PortError('CLOUD_MISMATCH', message))).toBe(other);
});

test('the address holds no user, and is https', () => {
  const rest = { datastore: 'd', pool: 'p' };
  expect(VmwareOptions.safeParse({ url: 'https://vc.example', ...rest }).success).toBe(true);
  for (const url of ['https://u:p@vc.example', 'https://u@vc.example', 'http://vc.example', 'vc.example']) {
    expect(VmwareOptions.safeParse({ url, ...rest }).success).toBe(false);
  }
  expect(VmwareOptions.safeParse({ url: 'https://vc.example', insecure: true, ...rest }).success).toBe(false);
});
