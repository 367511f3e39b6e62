# The live part of scripts/demo: a sample server runs and writes, and is captured over ssh meanwhile. Sourced.
# Needs `root`, `say`, the array `options`, and Node on PATH.
# shellcheck shell=bash

# live_value FILE EXPRESSION: a value of the JSON object in a file, by a JavaScript expression over `o`.
live_value() {
	node -e 'const o = JSON.parse(require("node:fs").readFileSync(process.argv[1], "utf8")); console.log(eval(process.argv[2]))' \
		"$1" "$2" </dev/null
}

# start_live FOLDER: boots the sample server; sets live_pid and the file live_json.
start_live() {
	live_json="$1/server.json"
	rm -rf "$1/server"
	mkdir -m 0700 "$1/server"
	: >"$live_json"
	"$root/fixtures/servers/run-live" bios-lvm "$1/server" --writer >"$live_json" 8>&- &
	live_pid=$!
	say "booting the sample server (without KVM about two minutes)"
	until [ -s "$live_json" ]; do
		kill -0 "$live_pid" 2>/dev/null || return 5
		sleep 1
	done
}

stop_live() {
	[ -z "${live_pid:-}" ] || kill "$live_pid" 2>/dev/null || true
	[ -z "${live_pid:-}" ] || wait "$live_pid" 2>/dev/null || true
	live_pid=''
}

# write_ssh_config FOLDER: what ssh has to know to reach the server; prints its path.
write_ssh_config() {
	local file="$1/ssh_config"
	cat >"$file" <<-CONFIG
		Host shop01
		  HostName 127.0.0.1
		  Port $(live_value "$live_json" o.sshPort)
		  User $(live_value "$live_json" o.user)
		  IdentityFile $(live_value "$live_json" o.keyFile)
		  IdentitiesOnly yes
		  UserKnownHostsFile $(live_value "$live_json" o.knownHosts)
		  StrictHostKeyChecking yes
	CONFIG
	echo "$file"
}

live_source=ssh://shop01/dev/sda

# capture_live FOLDER: boots the server and makes a first pass while it works; adds what `convert` needs to `options`.
capture_live() {
	local config
	trap stop_live EXIT
	start_live "$1" || {
		say "the sample server did not come up"
		return 5
	}
	config=$(write_ssh_config "$1")
	say "the server is up and writes; first pass over ssh"
	"$root/scripts/port-image" capture "$live_source" --job "$1/job" --ssh-config "$config" </dev/null >&2 || return $?
	# what a user would stop for the last pass, and start again
	options+=(--ssh-config "$config" --quiesce 'sync && systemctl is-active nginx' --resume-command true)
}

# check_live FOLDER: the data that were stripped from the copy are those of one moment, though the program never stopped writing.
check_live() {
	local folder=$1 id store
	"$root/scripts/port-image" jobs show "$folder/job" --json </dev/null >"$folder/summary.json"
	store=$(live_value "$folder/summary.json" 'o.dataSets.find((d) => d.path === "/srv/app")?.store ?? ""')
	id=$(live_value "$folder/summary.json" 'o.dataSets.find((d) => d.path === "/srv/app")?.id ?? ""')
	if [ -z "$id" ]; then
		say "/srv/app was not taken out (--no-strip), so it is not looked into here"
		return 0
	fi
	rm -rf "$folder/restored"
	"$root/scripts/port-image" data restore "$id" "$folder/restored" --store "$store" </dev/null >&2 || return $?
	if perl "$root/fixtures/servers/live/writer.pl" check "$folder/restored/live" >&2; then
		say "the copy of /srv/app is of one moment: every record, file and block of the writer agrees"
	else
		say "the copy of /srv/app is torn"
		return 7
	fi
}
