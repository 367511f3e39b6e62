import { expect, test } from 'vitest';
import { hostSettings, parseActions, parseUris } from '../../tools/apt.ts';

test('installs, upgrades and removals of a simulation', () => {
  const output = [
    'NOTE: This is only a simulation!',
    'Remv exim4 [4.96-1]',
    'Inst libssl3 [3.0.20-1~deb12u2] (3.0.22-1~deb12u2 Debian-Security:12/oldstable-security [amd64])',
    'Inst python3-jwt (2.6.0-1+deb12u1 Debian:12.15/oldstable, Debian-Security:12/oldstable-security [all])',
    'Inst libc6:i386 (2.36-9 Debian:12/stable [i386]) []',
    'Conf libssl3 (3.0.22 Debian:12 [amd64])',
  ].join('\n');
  expect(parseActions(output)).toEqual([
    { action: 'remove', name: 'exim4', version: '4.96-1', architecture: '' },
    {
      action: 'install',
      name: 'libssl3',
      version: '3.0.22-1~deb12u2',
      architecture: 'amd64',
      replaces: '3.0.20-1~deb12u2',
    },
    { action: 'install', name: 'python3-jwt', version: '2.6.0-1+deb12u1', architecture: 'all' },
    { action: 'install', name: 'libc6', version: '2.36-9', architecture: 'i386' },
  ]);
});

test('print-uris with SHA-256 only', () => {
  const sha = 'a'.repeat(64);
  expect(parseUris(`'http://x/a%2b_1_all.deb' a_1_all.deb 12 SHA256:${sha}\n`)).toEqual([
    { uri: 'http://x/a%2b_1_all.deb', fileName: 'a_1_all.deb', bytes: 12, sha256: sha },
  ]);
  expect(() => parseUris(`'http://x/a.deb' a.deb 12 MD5Sum:0123\n`)).toThrow(/SHA-256/);
  expect(() => parseUris(`'http://x/a.deb' ../a.deb 12 SHA256:${sha}\n`)).toThrow();
});

test('only the way to the network is taken from this machine', () => {
  expect(
    hostSettings(
      [
        'Acquire::http::Proxy "http://proxy:3128";',
        'Acquire::http::Proxy::deb.example.org "DIRECT";',
        'Acquire::https::CAInfo "/etc/ssl/x.pem";',
        'Acquire::https::proxy.example::Verify-Peer "true";',
        'Acquire::Check-Date "false";',
        'Acquire::AllowInsecureRepositories "1";',
        'APT::Get::AllowUnauthenticated "true";',
        'DPkg::Pre-Invoke:: "evil";',
        'Acquire::http::Proxy "";',
      ].join('\n'),
    ),
  ).toEqual([
    'Acquire::http::Proxy "http://proxy:3128";',
    'Acquire::http::Proxy::deb.example.org "DIRECT";',
    'Acquire::https::CAInfo "/etc/ssl/x.pem";',
    'Acquire::https::proxy.example::Verify-Peer "true";',
    'Acquire::Check-Date "false";',
  ]);
});
