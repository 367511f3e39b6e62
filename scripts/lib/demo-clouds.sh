# Other clouds for scripts/demo: starts their services, gives what `convert` needs. Sourced.
# Needs `root`, `say`, the array `options`, and Node on PATH.
# shellcheck shell=bash

# clouds_lines EXPRESSION: lines of an array in the services' answer, by a JavaScript expression over `o`.
clouds_lines() {
	node -e 'const o = JSON.parse(require("node:fs").readFileSync(process.argv[1], "utf8")); for (const l of eval(process.argv[2])) console.log(l)' \
		"$clouds_json" "$1" </dev/null
}

stop_clouds() {
	[ -z "${clouds_pid:-}" ] || kill "$clouds_pid" 2>/dev/null || true
	[ -z "${clouds_pid:-}" ] || wait "$clouds_pid" 2>/dev/null || true
	clouds_pid=''
}

# start_clouds FOLDER DISK PLATFORM…: what cannot be had is named, and its image stays a file. Adds to `options`.
start_clouds() {
	local folder=$1 disk=$2 gib line
	shift 2
	clouds_json="$folder/clouds.json"
	rm -f "$clouds_json"
	(umask 077 && : >"$clouds_json")
	gib=$(qemu-img info --output=json "$disk" 2>/dev/null </dev/null |
		node -e 'const o = JSON.parse(require("node:fs").readFileSync(0, "utf8")); console.log(Math.ceil(o["virtual-size"] / 2 ** 30))') ||
		gib=8
	trap stop_clouds EXIT
	node --disable-warning=ExperimentalWarning "$root/scripts/lib/demo-clouds.ts" "$folder" "$gib" "$@" \
		>"$clouds_json" </dev/null 8>&- &
	clouds_pid=$!
	say "starting services of other clouds (the first time their programs are fetched)"
	until [ -s "$clouds_json" ]; do
		kill -0 "$clouds_pid" 2>/dev/null || {
			say "no services of other clouds; the images stay files"
			return 0
		}
		sleep 0.5
	done
	while IFS= read -r line; do say "not here: $line; its image stays a file"; done < <(clouds_lines o.missing)
	while IFS= read -r line; do options+=(--set "$line"); done < <(clouds_lines o.sets)
	# The keys open these emulators and nothing else, and still they go by environment alone.
	# shellcheck disable=SC2016 # a JavaScript template
	while IFS= read -r line; do export "${line?}"; done < <(clouds_lines 'Object.entries(o.env).map(([k, v]) => `${k}=${v}`)')
}

# tell_clouds: what was real, and what stood in for it.
tell_clouds() {
	local line
	[ -s "${clouds_json:-}" ] || return 0
	[ -z "${openstack:-}" ] || say "openstack: Glance and Swift of this machine, with their own code"
	while IFS= read -r line; do say "$line"; done < <(clouds_lines o.told)
	say "the others are files here: no emulator of them can run on this machine (docs/platforms)"
}
