#!/bin/bash
# Builds the small Debian the instance tests boot and prints the folder with disk.raw, vmlinuz and initrd.
#
#   test/support/instance-guest.sh
#
# systemd, networkd, ssh, cloud-init, guest agent, curl and zstd; no boot loader: QEMU loads the kernel itself. Kept in
# the cache and built again only when this file changes. Needs root, mmdebstrap, e2fsprogs. Progress goes to stderr.
set -euo pipefail
umask 022

cache=${PORT_IMAGE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/port-image}/fixtures
key=$(sha256sum "${BASH_SOURCE[0]}" | cut -c1-16)
final=$cache/instance-$key
mkdir -p "$cache"
exec 9>"$cache/instance.lock"
flock 9
if [ -e "$final/disk.raw" ]; then
	echo "$final"
	exit 0
fi
rm -rf "$cache"/.instance-building-* "$cache"/instance-*/
work=$(mktemp -d "$cache/.instance-building-XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root

# A small initramfs: the machine's disk is always virtio.
cat >"$work/early" <<'HOOK'
#!/bin/sh
set -eu
mkdir -p "$1/etc/initramfs-tools/conf.d"
printf 'MODULES=list\nRESUME=none\nCOMPRESS=gzip\n' >"$1/etc/initramfs-tools/conf.d/small"
printf '%s\n' virtio_pci virtio_blk ext4 crc32c_generic >"$1/etc/initramfs-tools/modules"
HOOK
chmod 0755 "$work/early"
# How this machine reaches its package sources.
apt-config dump | grep -E '^Acquire::(http|https|Check-|Retries|ForceIPv|Proxy)' | grep -v ' "";$' >"$work/apt.conf" || true
echo 'APT::Install-Recommends "false";' >>"$work/apt.conf"
packages=systemd-sysv,udev,dbus,kmod,iproute2,openssh-server,curl,zstd,acl,attr,qemu-guest-agent,linux-image-amd64
packages+=,initramfs-tools,cloud-init,python3-configobj,python3-jinja2,python3-jsonpatch,python3-jsonschema
packages+=,python3-oauthlib,python3-requests,python3-yaml
mmdebstrap --mode=root --variant=minbase --architectures=amd64 --quiet --aptopt="$work/apt.conf" \
	--dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' --essential-hook="$work/early \"\$1\"" \
	--include="$packages" bookworm "$root" </dev/null >&2
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*

chroot "$root" systemctl -q enable systemd-networkd.service systemd-networkd-wait-online.service
: >"$root/etc/machine-id"
rm -f "$root"/var/lib/dbus/machine-id
mkdir -p "$root/var/log/journal" "$root/etc/cloud/cloud.cfg.d"
echo 'LABEL=root / ext4 errors=remount-ro 0 1' >"$root/etc/fstab"
# The modules that matter here; the rest would only cost minutes under emulation.
cat >"$root/etc/cloud/cloud.cfg.d/90-test.cfg" <<'CFG'
datasource_list: [ConfigDrive, None]
cloud_init_modules: [bootcmd, write-files, set_hostname, ssh]
cloud_config_modules: []
cloud_final_modules: [scripts-user, final-message]
system_info: { network: { renderers: [networkd] } }
CFG
# Slow and of no use in a machine that lives for minutes.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
	fstrim.timer motd-news.timer; do
	ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
cp "$root"/boot/vmlinuz-* "$work/vmlinuz"
cp "$root"/boot/initrd.img-* "$work/initrd"
rm -f "$root"/boot/*
# It tells of a new file even with -q.
mke2fs -q -F -t ext4 -L root -E lazy_itable_init=1 -d "$root" "$work/disk.raw" 2G >&2
rm -rf "$root" "$work/early" "$work/apt.conf"
mv -T "$work" "$final"
trap - EXIT
echo "$final"
