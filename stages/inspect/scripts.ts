/**
 * The scripts inspect runs with the appliance's own sh and tools. They are constant; guest text only passes through
 * as data. One script per subject, because under emulation each call and each process costs milliseconds.
 *
 * Records of PROBE are lines of tab-separated fields; text of the guest is base64, so it cannot forge a record.
 */

import { WINDOWS_SIGNS } from './windows.ts';

/** Describes every block device and looks into every file system, each mounted read-only for a moment. */
export const PROBE = `
LC_ALL=C; export LC_ALL
m=/tmp/port-image-probe
mkdir -p "$m"
own=$(mountpoint -d /)
record() { printf '%s\\t' "$@"; }
encoded() { base64 -w0; echo; }
# libguestfs numbers disks by this order; the kernel's letters may differ from run to run
for p in $(printf '%s\\n' /dev/disk/by-path/* | sort -V); do
  case $p in *-part*) continue ;; esac
  n=$(readlink -f "$p") && { record disk "\${n##*/}"; echo; }
done
for b in /sys/class/block/*; do
  n=\${b##*/}
  case $n in loop*|ram*|zram*|nbd*|fd*|sr*) continue ;; esac
  dev= size= start= part= dm=
  read -r dev < "$b/dev"
  read -r size < "$b/size"
  [ "$dev" = "$own" ] && { own=/dev/$n; continue; }
  [ -r "$b/start" ] && read -r start < "$b/start"
  [ -r "$b/partition" ] && read -r part < "$b/partition"
  [ -r "$b/dm/name" ] && read -r dm < "$b/dm/name"
  record block "$n" "$dev" "$size" "\${start:--}" "\${part:--}"
  if [ -n "$dm" ]; then printf %s "$dm" | encoded; else echo; fi
  case $n in
  sd*|vd*|hd*) [ -z "$part" ] && {
    record table "$n"; sfdisk --json "/dev/$n" 2>/dev/null | encoded
    # the code of a BIOS boot loader has its name in the first sector
    head -c 440 "/dev/$n" 2>/dev/null | grep -aq GRUB && { record loader "$n"; echo; }
  } ;;
  esac
done
record dm; dmsetup table 2>/dev/null | encoded
record lvm; lvm fullreport --reportformat json --units b --nosuffix \\
  --configreport vg -o vg_name,vg_uuid,vg_missing_pv_count \\
  --configreport pv -o pv_name --configreport lv -o lv_name,lv_size,lv_dm_path \\
  --configreport pvseg -o pvseg_start --configreport seg -o segtype 2>/dev/null | encoded
record md; head -c 4096 /proc/mdstat 2>/dev/null | encoded
# shows a file that is no link and lies below the root that is looked at; builtins only, as processes are dear
show() {
  f=$r/$2
  [ -f "$f" ] && [ ! -L "$f" ] || return 1
  cd -P "\${f%/*}" 2>/dev/null && d=$PWD && cd / || return 1
  case $d/ in "$m"/*) ;; *) return 1 ;; esac
  record file "$id" "$1" "$2"; head -c "$3" -- "$f" | encoded
}
look() {
  show text usr/lib/os-release 4096 || show text etc/os-release 4096
  show text etc/fstab 65536
  for p in bin/sh usr/bin/sh sbin/init usr/lib/systemd/systemd ${WINDOWS_SIGNS.join(' ')} EFI grub/grub.cfg boot/grub/grub.cfg \\
    etc/redhat-release etc/SuSE-release etc/alpine-release etc/arch-release etc/gentoo-release etc/debian_version var/lib/dpkg/status; do
    [ -e "$r/$p" ] || [ -L "$r/$p" ] || continue
    record has "$id" "$p"; echo
  done
}
probe() {
  id=$1 r=$m
  case $2 in
  ext2|ext3|ext4) record ext "$1"; dumpe2fs -h "$1" 2>/dev/null | grep -aE '^Filesystem (features|state):' | encoded ;;
  esac
  how=ro
  [ "$2" = xfs ] && how=ro,nouuid
  case $2 in
  ntfs) why=$(ntfs-3g -o ro "$1" "$m" 2>&1) ;;
  *) why=$(mount -t "$2" -o "$how" "$1" "$m" 2>&1) ;;
  esac || { record failed "$1"; printf %s "$why" | tail -c 1000 | encoded; return 0; }
  record space "$1"; stat -f -c '%S %b %f %d' "$m"
  look
  show head hiberfil.sys 4
  if [ "$2" = btrfs ]; then
    record default "$1"; btrfs subvolume get-default "$m" 2>/dev/null | encoded
    btrfs subvolume list "$m" 2>/dev/null | sed -n 's/^ID [0-9]* gen [0-9]* top level [0-9]* path //p' | head -n 60 |
      while IFS= read -r v; do
        [ -d "$m/$v/etc" ] || continue
        name=$(printf %s "$v" | base64 -w0)
        r=$m/$v id="$1:$name"
        record subvolume "$1" "$name"; echo
        look
      done
  fi
  umount "$m" || umount -l "$m"
}
blkid -c /dev/null -o export > /tmp/port-image-blkid 2>/dev/null
record blkid; encoded < /tmp/port-image-blkid
echo >> /tmp/port-image-blkid
d= t=
while IFS= read -r line; do
  case $line in
  DEVNAME=*) d=\${line#*=} ;;
  TYPE=*) t=\${line#*=} ;;
  '')
    if [ -b "$d" ] && [ "$d" != "$own" ]; then
      case $t in
      ext2|ext3|ext4|xfs|btrfs|vfat|ntfs|f2fs|jfs|reiserfs|iso9660|exfat|ufs) probe "$d" "$t" ;;
      esac
    fi
    d= t= ;;
  esac
done < /tmp/port-image-blkid
rm -f /tmp/port-image-blkid
record kernel; dmesg | grep -aE 'Starting recovery|recovery complete' | tail -c 8192 | encoded
`;

/**
 * Gathers configuration files, unit files, package database and listings of the mounted guest into one tar in the
 * exchange folder. Symbolic links are stored as links; a start that leads out of the guest is left out.
 */
export const COLLECT = `
LC_ALL=C; export LC_ALL
s=/sysroot
x=$s/run/port-image/inspect
rm -rf "$x"; mkdir -p "$x/@lists"
cd "$s" || exit 1
inside() { cd -P "$s/$1" 2>/dev/null || return 1; d=$PWD; cd "$s"; case $d in "$s"/*) ;; *) return 1 ;; esac; }
kept() { case $1 in */*) inside "\${1%/*}" || return 1 ;; esac; [ -e "$s/$1" ] || [ -L "$s/$1" ]; }
if [ -L lib ]; then libs=usr/lib; else libs='lib usr/lib'; fi
set --
for t in lib etc/os-release usr/lib/os-release etc/hostname etc/machine-id etc/passwd etc/fstab etc/crypttab etc/inittab \\
  etc/default/grub etc/default/grub.d etc/resolv.conf etc/network etc/netplan etc/systemd etc/NetworkManager \\
  etc/sysconfig/network etc/sysconfig/network-scripts etc/udev/rules.d etc/nginx etc/apache2 etc/mysql etc/my.cnf \\
  etc/postgresql etc/redis etc/mongod.conf etc/mongodb.conf etc/crontab etc/cron.d var/spool/cron/crontabs etc/init.d etc/rc2.d etc/rc3.d \\
  etc/runlevels boot/grub/grub.cfg boot/grub/grubenv boot/grub2/grub.cfg boot/grub2/grubenv var/lib/dpkg/arch \\
  boot/loader/entries lib/apk/db/installed usr/lib/apk/db/installed \\
  var/lib/dhcp root/.ssh/authorized_keys; do kept "$t" && set -- "$@" "$t"; done
for l in $libs; do
  for t in "$l"/systemd/system "$l"/systemd/network "$l"/netplan "$l"/modules/*/modules.dep "$l"/modules/*/modules.builtin "$l"/modules/*/pkgbase; do
    kept "$t" && set -- "$@" "$t"
  done
done
for t in home/*/.ssh/authorized_keys boot/efi/EFI/*/grub.cfg boot/efi/EFI/*/grubenv; do kept "$t" && set -- "$@" "$t"; done
{
  find "$@" -maxdepth 5 \\( -type l -o -type f -size -4097k \\) -print0
  kept var/lib/dpkg/status && find var/lib/dpkg/status -type f -size -65537k -print0
} 2>/dev/null | head -z -n 30000 > "$x/names"
inside boot && find boot -maxdepth 6 \\( -path 'boot/grub*/*/*' -prune -o -printf '%y\\t%s\\t%p\\t%l\\0' \\) 2>/dev/null | head -c 4194304 > "$x/@lists/boot"
find . -maxdepth 1 -type l -printf '%y\\t%s\\t%P\\t%l\\0' > "$x/@lists/top"
for l in $libs; do inside "$l/modules" && find "$l/modules" -mindepth 1 -maxdepth 1 -type d -printf '%f\\0'; done > "$x/@lists/modules"
for t in usr/bin/ls bin/ls usr/bin/env sbin/init; do
  f=$(readlink -f -- "$s/$t") || continue
  case $f in "$s"/*) [ -f "$f" ] && { head -c 64 -- "$f" > "$x/@lists/elf"; break; } ;; esac
done
grep -a ' /sysroot' /proc/mounts > "$x/@lists/mounts"
set --
for t in srv opt home var/www var/lib var/backups; do inside "$t" && set -- "$@" "$t"; done
{ [ $# -gt 0 ] && du -B1 -0 -d 2 -- "$@"; inside var/log && du -B1 -0 -a -d 2 -- var/log; } > "$x/@lists/sizes" 2>/dev/null
if inside var/lib/dpkg/info; then
  (cd var/lib/dpkg/info && grep -haE '^/(srv|opt|home|var/www|var/lib|var/backups|var/log)/.' -- *.list 2>/dev/null) |
    while IFS= read -r p; do
      [ -d "$s$p" ] && [ ! -L "$s$p" ] || printf '%s\\0' "$p"
    done | head -c 16777216 > "$x/@lists/owned"
fi
set -- usr/bin/VBoxClient usr/sbin/VBoxService usr/bin/vmware-uninstall-tools.pl usr/sbin/waagent usr/sbin/xe-daemon \\
  usr/bin/google_guest_agent usr/bin/amazon-ssm-agent usr/lib/parallels-tools/install usr/sbin/qemu-ga usr/bin/cloud-init usr/bin/vmtoolsd
for t; do [ -e "$s/$t" ] && printf '%s\\0' "/$t"; done > "$x/@lists/agents"
tar --format=gnu --numeric-owner -cf "$x/bundle.tar" -C "$x" @lists -C "$s" --null -T "$x/names" 2>/dev/null
size=$(stat -c %s "$x/bundle.tar")
[ "$size" -le 134217728 ] || { echo "configuration of the guest is larger than 128 MiB" >&2; exit 1; }
printf '%s\\n' "$size"
`;

/** For each argument, a path of the guest: how many files are in it, one line each. Removes what COLLECT left. */
export const COUNT = `
for p; do find "/sysroot$p" ! -type d -printf . 2>/dev/null | wc -c; done
rm -rf /sysroot/run/port-image/inspect
`;
