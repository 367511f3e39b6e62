# The live part of scripts/demo: a sample server runs and writes, is captured over ssh meanwhile, converted, booted. Sourced.
# Needs `root`, `say`, `use_node` and `$1`, the folder of the demo.
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
	"$root/fixtures/servers/run-live" bios-lvm "$1/server" --writer >"$live_json" &
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
