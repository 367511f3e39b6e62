/** The verify-only user data: a small script that watches the boot and reports on the second serial port. */

import type { Provision } from '../../core/contract.ts';
import { provisionFile } from '../../tools/user-data.ts';

/** What the reporter is told. */
export interface ReporterOptions {
  /** Unguessable word in every line, so nothing else on the port is taken for the report. */
  nonce: string;
  /** Seconds since boot after which it reports whatever it sees. */
  limitSeconds: number;
  /** True when data sets must arrive before the report. */
  waitForData: boolean;
  /** Units whose state is asked for. */
  units: readonly string[];
  /** Paths of pages read from http://127.0.0.1/. */
  pages: readonly string[];
  /** True when the mount points of file systems are asked for. */
  mounts?: boolean;
  /** Provision document, for platforms that hand nothing over but user data. */
  provision?: Provision;
}

/** Names that are safe as words of the script; systemd allows no others in unit names. */
const UNIT_NAME = /^[A-Za-z0-9][A-Za-z0-9:_.@\\-]{0,200}$/;
/** Page paths without anything a shell or a URL would read differently. */
const PAGE_PATH = /^\/[A-Za-z0-9_./-]{0,200}$/;

/** Unit names that can be asked for: the others come from a hostile guest. */
export function safeUnits(units: readonly string[]): string[] {
  return [...new Set(units)].filter((unit) => UNIT_NAME.test(unit));
}

/**
 * The script. Each line on the port is JSON `{"n":NONCE,"k":NAME,"s":STATUS,"d":BASE64}`: base64 keeps whatever the
 * guest prints from breaking a line. Sections are cut to 16 KiB: the port is slow under software emulation.
 * It must not use `cloud-init status`: starting Python costs seconds there, and the result files say the same.
 */
const SCRIPT = `set -u
mkdir /run/port-image-verify 2>/dev/null || exit 0
cd /run/port-image-verify || exit 0
exec 3>/dev/ttyS1 </dev/null
stty -F /dev/ttyS1 raw -echo 2>/dev/null
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH LC_ALL=C SYSTEMD_PAGER= SYSTEMD_COLORS=0
send() { # NAME STATUS: content on stdin
  printf '{"n":"%s","k":"%s","s":%s,"d":"%s"}\\n' "$NONCE" "$1" "$2" "$(head -c 16384 | base64 | tr -d '\\n')" >&3
}
section() { # NAME COMMAND...
  name=$1; shift
  if "$@" >out 2>err; then rc=0; else rc=$?; fi
  [ -s out ] || cat err >out
  send "$name" "$rc" <out
}
field() { cat /proc/uptime | cut -d. -f1; }
data_status() { port-image-data status --json 2>/dev/null; }
data_settled() {
  [ "$WAIT_DATA" = 1 ] || return 0
  command -v port-image-data >/dev/null 2>&1 || return 0
  data_status >data || return 1
  ! grep -Eq '"state" *: *"(pending|waiting|fetching)"' data
}
fetch() { # PATH
  if command -v curl >/dev/null 2>&1; then
    curl -s -m 20 --max-filesize 16777216 -o page -w '%{http_code}' "http://127.0.0.1$1"
  elif command -v wget >/dev/null 2>&1; then
    wget -q -T 20 -O page "http://127.0.0.1$1" && printf 200
  else
    printf 'no curl or wget'
    return 1
  fi
}
page() {
  : >page
  code=$(fetch "$1")
  printf '%s %s %s %s\\n' "$1" "\${code:-0}" "$(wc -c <page)" "$(sha256sum <page | cut -d' ' -f1)"
}
# One line a data set: ID MODE START-OF-FETCH UNITS; the start in microseconds since the kernel's, 0 for never.
sets() {
  for conf in /usr/lib/port-image/data.d/*.conf; do
    [ -r "$conf" ] || continue
    (. "$conf"; printf '%s %s %s %s\\n' "$ID" "$MODE" \
      "$(systemctl show --value -p InactiveExitTimestampMonotonic "port-image-data@$ID.service")" "$NEEDED_BY")
  done
}
pages() { for p in $PAGES; do page "$p"; done; }
listening() { ss -Hlntu 2>/dev/null || netstat -lntu; }
web() { listening | grep -Eq '(:80|\\.80)[[:space:]]'; }
uname -r | send start 0
last=
while :; do
  up=$(field)
  system=$(systemctl is-system-running 2>/dev/null)
  ci=no; [ -e /run/cloud-init/result.json ] && ci=yes
  data=no; data_settled && data=yes
  now="system=\${system:-unknown} cloud-init-finished=$ci data=$data"
  [ "$now" = "$last" ] || printf '%s' "$now" | send wait 0
  last=$now
  case $system in
    running|degraded|maintenance) [ $ci = yes ] && [ $data = yes ] && break ;;
  esac
  [ "$up" -ge "$LIMIT" ] && break
  sleep 1
done
if web; then
  # A server may bind its port before it answers.
  for try in 1 2 3 4 5; do [ "$(fetch /)" != 000 ] && break; sleep 1; done
fi
send system 0 <<EOF
$now
EOF
section uptime cat /proc/uptime
section os-release cat /etc/os-release
section hostname hostname
section cmdline cat /proc/cmdline
section cloud-init-status cat /run/cloud-init/status.json
section cloud-init-result cat /run/cloud-init/result.json
section addresses ip -j address
section routes ip -j route show default
section mounts findmnt -rn -o TARGET,SOURCE,FSTYPE,OPTIONS /
section space df -Pk /
[ -z "$WANT_MOUNTS" ] || section disk-mounts findmnt -rn -t ext2,ext3,ext4,xfs,btrfs,vfat,f2fs,jfs,ntfs,ntfs3,fuseblk -o TARGET,SOURCE,FSTYPE
section failed systemctl list-units --state=failed --plain --no-legend --no-pager --full
section jobs systemctl list-jobs --no-legend --no-pager --full
section times systemd-analyze time
sets >sets 2>/dev/null
send sets 0 <sets
for unit in $(cut -d' ' -f4- sets); do
  case " $UNITS " in *" $unit "*) ;; *) UNITS="$UNITS $unit" ;; esac
done
[ -n "$UNITS" ] && section units systemctl show --no-pager \\
  -p Id,LoadState,ActiveState,SubState,Result,Type,ConditionResult,WantedBy,ExecMainStartTimestampMonotonic,ActiveEnterTimestampMonotonic $UNITS
command -v port-image-data >/dev/null 2>&1 && section data data_status
section listening listening
if web || [ -n "$WANT_PAGES" ]; then section pages pages; fi
section journal journalctl -b -p err -n 50 --no-pager -o short-monotonic
for unit in $(systemctl list-units --state=failed --plain --no-legend --no-pager | cut -d' ' -f1 | head -n 5); do
  section "unit-log" journalctl -b -u "$unit" -n 15 --no-pager -o short-monotonic
done
# The hardware in use: the root disk's and the cards' drivers by sysfs.
drivers() {
  for disk in /sys/block/*; do
    case $disk in */loop*|*/ram*|*/dm-*|*/md*|*/sr*|*/fd*) continue ;; esac
    path=$(readlink -f "$disk/device") found=
    while [ "$path" != / ] && [ -n "$path" ]; do
      if [ -e "$path/driver" ]; then found="$found $(basename "$(readlink -f "$path/driver")")"; fi
      path=$(dirname "$path")
    done
    echo "disk \${disk##*/}$found"
  done
  for card in /sys/class/net/*; do
    [ -e "$card/device/driver" ] || continue
    echo "net \${card##*/} $(basename "$(readlink -f "$card/device/driver")")"
  done
}
section drivers drivers
section agent-unit systemctl is-active qemu-guest-agent
: | send end 0
`;

/** The script with its parameters, which are all checked words. */
export function reporterScript(options: ReporterOptions): string {
  const pages = [...new Set(['/', ...options.pages])].filter((page) => PAGE_PATH.test(page));
  // Single quotes: unit names may hold a backslash (systemd's escape).
  const head = [
    `NONCE='${options.nonce}'`,
    `LIMIT=${Math.ceil(options.limitSeconds)}`,
    `WAIT_DATA=${options.waitForData ? 1 : 0}`,
    `UNITS='${safeUnits(options.units).slice(0, 150).join(' ')}'`,
    `PAGES='${pages.join(' ')}'`,
    `WANT_PAGES='${options.pages.length > 0 ? 1 : ''}'`,
    `WANT_MOUNTS='${options.mounts === true ? 1 : ''}'`,
  ];
  return `#!/bin/sh\n${head.join('\n')}\n${SCRIPT}`;
}

/**
 * User data with two parts that start the same script: a boot command, early, so that a late failure is still watched,
 * and a user script in case the image's cloud-init has no bootcmd module. The second start finds the first and ends.
 * The script outlives cloud-init as a transient unit: it waits for the end of the boot, cloud-init is part of it.
 */
export function reporterUserData(options: ReporterOptions): string {
  const script = Buffer.from(reporterScript(options)).toString('base64');
  const start = `umask 077
printf %s '${script}' | base64 -d >/run/port-image-report.sh
if [ -d /run/systemd/system ]; then
  systemd-run --quiet --no-block --unit=port-image-verify sh /run/port-image-report.sh || true
else
  setsid sh /run/port-image-report.sh >/dev/null 2>&1 &
fi
`;
  const files = options.provision === undefined ? {} : { write_files: [provisionFile(options.provision)] };
  const config = `#cloud-config\n${JSON.stringify({ bootcmd: [['sh', '-c', start]], ...files })}\n`;
  const late = `#!/bin/sh\n[ -d /run/port-image-verify ] && exit 0\n${start}`;
  const boundary = 'port-image-verify-part';
  const part = (type: string, body: string) =>
    `--${boundary}\nContent-Type: ${type}; charset="utf-8"\nMIME-Version: 1.0\n\n${body}\n`;
  return (
    `Content-Type: multipart/mixed; boundary="${boundary}"\nMIME-Version: 1.0\n\n` +
    part('text/cloud-config', config) +
    part('text/x-shellscript', late) +
    `--${boundary}--\n`
  );
}
