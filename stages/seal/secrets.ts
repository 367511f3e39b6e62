/** Where secrets usually lie. They are part of the server, so they stay; the report names their paths, never content. */
import type { StageContext } from '../../core/stage.ts';

/** Below each home. */
const IN_HOMES: readonly string[] = [
  '.ssh/authorized_keys',
  '.ssh/id_*',
  '.ssh/identity',
  '.bash_history',
  '.zsh_history',
  '.mysql_history',
  '.psql_history',
  '.rediscli_history',
  '.python_history',
  '.aws/credentials',
  '.config/gcloud/*.db',
  '.config/openstack/clouds.yaml',
  '.config/openstack/secure.yaml',
  '.config/rclone/rclone.conf',
  '.azure/accessTokens.json',
  '.azure/msal_token_cache.*',
  '.kube/config',
  '.docker/config.json',
  '.pgpass',
  '.my.cnf',
  '.netrc',
  '.git-credentials',
  '.gnupg/private-keys-v1.d/*',
  '.smbcredentials',
  '.vault-token',
  '.s3cfg',
];

/** On the system. */
const ON_SYSTEM: readonly string[] = [
  '/etc/ssh/ssh_host_*_key',
  '/etc/ssl/private/*',
  '/etc/letsencrypt/live/*/privkey.pem',
  '/etc/letsencrypt/archive/*/privkey*.pem',
  '/etc/wireguard/*.conf',
  '/etc/openvpn/*.key',
  '/etc/openvpn/*/*.key',
  '/etc/ipsec.secrets',
  '/etc/ipsec.d/private/*',
  '/etc/krb5.keytab',
  '/etc/samba/*.tdb',
  '/var/lib/samba/private/secrets.tdb',
  '/etc/cifs*cred*',
  '/etc/*credentials*',
  '/etc/ppp/chap-secrets',
  '/etc/wpa_supplicant/*.conf',
  '/etc/NetworkManager/system-connections/*',
  '/var/lib/port-image/network/etc/NetworkManager/system-connections/*',
  '/etc/mysql/debian.cnf',
  '/etc/exim4/passwd.client',
  '/etc/postfix/sasl_passwd*',
  '/etc/backup*/*pass*',
  '/var/crash/*',
  '/var/lib/systemd/coredump/*',
];

/** Finds them by path, sorted. */
export async function findSecrets(ctx: StageContext): Promise<string[]> {
  const homes = new Set(
    ctx.facts.users.filter((u) => u.human || u.authorizedKeys > 0).map((u) => u.home.replace(/\/+$/, '')),
  );
  homes.add('/root');
  // A home is guest text: names that would act as a pattern are left to the fixed globs.
  const plain = [...homes].filter((h) => /^\/[\w./@+-]+$/.test(h));
  const globs = [...ON_SYSTEM, ...plain.flatMap((h) => IN_HOMES.map((p) => `${h}/${p}`))];
  const found = new Set<string>();
  for (const glob of globs) {
    for (const path of await ctx.guest.glob(glob)) {
      if (!path.endsWith('/') && !path.endsWith('.pub')) found.add(path);
    }
  }
  return [...found].sort();
}
