import { expect, test } from 'vitest';
import { parsedJson, withoutSecrets } from '../../core/text.ts';

const LEFT_OUT = '[line left out: it may hold a secret]';

test.each([
  ['ifupdown', '  wpa-psk 0123456789abcdef'],
  ['ifupdown', '  wireless-key s:hunter2'],
  ['fstab', '//nas/share /mnt cifs username=bob,password=hunter2 0 0'],
  ['grub', 'password_pbkdf2 root grub.pbkdf2.sha512.10000.AB'],
  ['cloud-init', '  passwd: $6$salt$hash'],
  ['shadow', 'bob:$y$j9T$salt$hash:19000:0:99999:7:::'],
  ['a URL', 'up curl https://bob:hunter2@example.com/up'],
])('a line of %s with a secret is left out', (_name, line) => {
  expect(withoutSecrets(`first\n${line}\nlast`)).toBe(`first\n${LEFT_OUT}\nlast`);
});

test('ordinary lines stay, a private key hides the whole file', () => {
  const fstab = 'UUID=0a1b / ext4 errors=remount-ro 0 1\n/dev/sda2 none swap sw 0 0\n';
  expect(withoutSecrets(fstab)).toBe(fstab);
  expect(withoutSecrets('GRUB_CMDLINE_LINUX="root=/dev/sda1 quiet"')).toContain('/dev/sda1');
  expect(withoutSecrets('a\n-----BEGIN OPENSSH PRIVATE KEY-----\nb\n')).not.toMatch(/\nb\n/);
});

test('JSON, or nothing', () => {
  expect(parsedJson('{"a":[1]}')).toEqual({ a: [1] });
  expect(parsedJson('null')).toBeNull();
  for (const none of ['', '{', 'undefined', '<html>']) expect(parsedJson(none)).toBeUndefined();
});
