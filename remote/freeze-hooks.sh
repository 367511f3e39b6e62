# shellcheck shell=sh
# Quiesces what is known to need it, says `ready`, waits for the end of its input, undoes it. Run by the helper as root.
# Lines for the caller: `hook NAME ok|failed TEXT`. Nothing here stays when the input ends, whatever happened before.

say() {
	printf 'hook %s %s %s\n' "$1" "$2" "$(printf %s "$3" | tr '\n\r\t' '   ' | cut -c 1-300)"
}

# qemu-guest-agent's convention: one program that is called with freeze and thaw.
# The hook may fork what keeps our output open: it gets files of its own.
qemu_hook() {
	if out=$(/etc/qemu/fsfreeze-hook "$1" 2>&1 </dev/null); then
		say "fsfreeze-hook-$1" ok "$out"
	else
		say "fsfreeze-hook-$1" failed "$out"
	fi
}

postgres_checkpoint() {
	for socket in /run/postgresql/.s.PGSQL.* /tmp/.s.PGSQL.*; do
		[ -S "$socket" ] || continue
		port=${socket##*.}
		# anybody may make files in /tmp: the name becomes part of a command
		case $port in *[!0-9]* | '') continue ;; esac
		# peer authentication: as the owner of the socket, with no password asked for
		owner=$(stat -c %U "$socket" 2>/dev/null)
		if out=$(su -s /bin/sh -c "psql -wXAtq -h '${socket%/*}' -p '$port' -d postgres -c CHECKPOINT" -- "${owner:-postgres}" 2>&1 </dev/null); then
			say "postgresql-$port" ok checkpoint
		else
			say "postgresql-$port" failed "$out"
		fi
	done
}

# The lock lives as long as its session: one client that is fed until our input ends.
mysql_locked() {
	client=$1
	{
		printf '%s\n' 'SET SESSION lock_wait_timeout=20;' 'FLUSH TABLES WITH READ LOCK;' "SELECT 'locked';"
		cat <&3
	} | "$client" --no-auto-rehash --connect-timeout=5 -u root -nBN 2>&1 | {
		IFS= read -r line || line='no answer'
		case $line in
		locked) say mysql ok 'tables are locked' ;;
		*) say mysql failed "$line" ;;
		esac
		echo ready
		cat >/dev/null
		# a client that failed ends at once: what follows is for the end of the input alone
		cat <&3 >/dev/null
	}
}

mysql_running() {
	for name in mysqld mariadbd; do
		for comm in /proc/[0-9]*/comm; do
			IFS= read -r running <"$comm" 2>/dev/null || continue
			[ "$running" != "$name" ] || return 0
		done
	done
	return 1
}

exec 3<&0 </dev/null
hook=
if [ -x /etc/qemu/fsfreeze-hook ] && [ -f /etc/qemu/fsfreeze-hook ]; then
	hook=1
	qemu_hook freeze
fi
postgres_checkpoint
client=
if mysql_running; then
	for name in mariadb mysql; do
		if command -v "$name" >/dev/null 2>&1; then
			client=$name
			break
		fi
	done
fi
if [ -n "$client" ]; then
	mysql_locked "$client"
else
	echo ready
	cat <&3 >/dev/null
fi
[ -z "$hook" ] || qemu_hook thaw
