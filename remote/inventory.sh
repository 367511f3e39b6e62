# shellcheck shell=sh
# What the machine is, as sections of plain facts. Reads only, changes nothing, starts nothing that stays; no secrets: no arguments or
# environments of processes, no configuration but resolver and os-release. The sender sets `mark`, a random word: what a
# file or program says cannot pass for the head of a section.

section() {
	printf '\n@%s %s\n' "$mark" "$1"
}

# A file's beginning, when it is there.
content() {
	[ -r "$1" ] && head -c "${2:-65536}" "$1" 2>/dev/null
}

# A program that may hang (a dead disk, a dead server) is given up.
soon() {
	if command -v timeout >/dev/null 2>&1; then
		timeout 20 "$@"
	else
		"$@"
	fi </dev/null 2>/dev/null | head -c 524288
}

# One fact: NAME KEY VALUE with tabs between; only the first line of a value counts.
fact() {
	if IFS= read -r value 2>/dev/null <"$3" || [ -n "$value" ]; then
		printf '%s\t%s\t%s\n' "$1" "$2" "$value"
	fi 2>/dev/null
}

exec 2>/dev/null </dev/null
PATH=$PATH:/usr/sbin:/sbin:/usr/local/sbin
LC_ALL=C
export PATH LC_ALL

section hostname
content /proc/sys/kernel/hostname
section kernel
uname -rm
section os-release
content /etc/os-release || content /usr/lib/os-release
section memory
grep '^MemTotal:' /proc/meminfo
section cpus
grep -c '^processor' /proc/cpuinfo
section cpu-model
sed -n '/^model name/{p;q}' /proc/cpuinfo
section dmi
for key in sys_vendor product_name product_version; do
	fact dmi "$key" "/sys/class/dmi/id/$key"
done
section firmware
if [ -d /sys/firmware/efi ]; then
	echo uefi
	od -An -tu1 -j4 -N1 /sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c
elif [ -d /sys/firmware/devicetree/base ] && [ ! -d /sys/class/dmi/id ]; then
	echo other
else
	echo bios
fi

section block
for folder in /sys/class/block/*; do
	name=${folder##*/}
	case $name in ram*) continue ;; esac
	printf '%s\tpath\t%s\n' "$name" "$(readlink -f "$folder")"
	for key in dev size ro removable partition start dm/name dm/uuid md/level md/array_state loop/backing_file wwid \
		queue/rotational queue/logical_block_size device/model device/vendor device/serial serial; do
		[ ! -f "$folder/$key" ] || fact "$name" "$key" "$folder/$key"
	done
	for under in "$folder"/slaves/*; do
		[ ! -e "$under" ] || printf '%s\tslave\t%s\n' "$name" "${under##*/}"
	done
	IFS= read -r dev <"$folder/dev" || continue
	IFS= read -r size <"$folder/size" || continue
	# what udev knows; else what is at the start of the device
	if [ -r "/run/udev/data/b$dev" ]; then
		grep -E '^(S:disk/|E:ID_(FS_(TYPE|UUID|LABEL|UUID_SUB)|PART_TABLE_TYPE|PART_ENTRY_(TYPE|UUID|NAME|FLAGS)|BUS|MODEL|SERIAL|SERIAL_SHORT)=)' \
			"/run/udev/data/b$dev" | head -c 16384 | sed 's/^/\t/' | while IFS= read -r line; do
			printf '%s\tudev%s\n' "$name" "$line"
		done
	elif [ "$size" -gt 0 ]; then
		soon blkid -p -o udev "/dev/$name" | head -c 16384 | while IFS= read -r line; do
			printf '%s\tudev\tE:%s\n' "$name" "$line"
		done
	fi
done
section links
for link in /dev/disk/by-id/* /dev/disk/by-path/* /dev/disk/by-uuid/* /dev/mapper/*; do
	[ ! -L "$link" ] || printf '%s\t%s\n' "$(readlink "$link")" "$link"
done
section btrfs
for device in /sys/fs/btrfs/*/devices/*; do
	[ ! -e "$device" ] || printf '%s\n' "$device"
done
section mounts
content /proc/1/mountinfo 524288 || content /proc/self/mountinfo 524288
# containers and services may have mounts of their own: one process of each namespace, one line of each file system
section other-mounts
own=$(readlink /proc/1/ns/mnt || readlink /proc/self/ns/mnt)
# shellcheck disable=SC2012 # the names are numbers, and one ls for all is one process
ls -l /proc/[0-9]*/ns/mnt | sed -n 's|^.* /proc/\([0-9]*\)/ns/mnt -> \(.*\)$|\2 \1|p' | sort -u -k 1,1 |
	while read -r space pid; do
		[ "$space" = "$own" ] || sed "s/^/$pid /" "/proc/$pid/mountinfo"
	done | grep -E '^[0-9]+ [0-9]+ [0-9]+ [0-9]+:[0-9]+ [^ ]+ [^ ]+ rw[ ,].* - .*[ ,]rw(,|$)' |
	grep -E '^[0-9]+ [0-9]+ [0-9]+ ([1-9]|.* - (btrfs|zfs|bcachefs) )' | sort -u -k 4,4 | head -c 262144
section usage
soon df -PTkl
section swaps
content /proc/swaps
section mdstat
content /proc/mdstat
section pvs
soon pvs --readonly --reportformat json --units b --nosuffix -o pv_name,vg_name,pv_size,pv_free
section lvs
soon lvs --readonly --reportformat json --units b --nosuffix -o lv_name,vg_name,lv_size,segtype,lv_dm_path
section vgs
soon vgs --readonly --reportformat json --units b --nosuffix -o vg_name,vg_size,vg_free
section net
for folder in /sys/class/net/*; do
	[ -d "$folder" ] || continue
	name=${folder##*/}
	printf '%s\tpath\t%s\n' "$name" "$(readlink -f "$folder")"
	for key in address mtu operstate type bonding/mode; do
		[ ! -f "$folder/$key" ] || fact "$name" "$key" "$folder/$key"
	done
	[ ! -e "$folder/device/driver" ] || printf '%s\tdriver\t%s\n' "$name" "$(basename "$(readlink -f "$folder/device/driver")")"
	[ ! -d "$folder/bridge" ] || printf '%s\tbridge\t1\n' "$name"
done
section addresses
soon ip -o addr show
section routes
soon ip route show
soon ip -6 route show
section proc-routes
content /proc/net/route
section resolv
if grep -q '^nameserver 127.0.0.53' /etc/resolv.conf && [ -r /run/systemd/resolve/resolv.conf ]; then
	grep -E '^(nameserver|search|domain)' /run/systemd/resolve/resolv.conf
else
	grep -E '^(nameserver|search|domain)' /etc/resolv.conf
fi | head -c 16384
section services
soon systemctl list-units --type=service --state=running --no-legend --plain --no-pager
section processes
cat /proc/[0-9]*/comm | sort -u | head -c 65536
section ports
soon ss -Hltunp
section proc-ports
for table in tcp tcp6 udp udp6; do
	sed "s/^/$table /" "/proc/net/$table" | head -c 262144
done
section programs
for name in qemu-ga vmtoolsd waagent cloud-init xe-daemon xe-guest-utilities google_guest_agent amazon-ssm-agent hv_kvp_daemon \
	hypervkvpd VBoxService prltoolsd oracle-cloud-agent ovirt-guest-agent; do
	if command -v "$name" >/dev/null || [ -x "/usr/sbin/$name" ] || [ -x "/usr/bin/$name" ]; then
		echo "$name"
	fi
done
section end
