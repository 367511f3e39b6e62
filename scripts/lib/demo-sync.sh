# The nightly part of scripts/demo: two clouds, S3 and Azure on this machine are kept the same for three nights. Sourced.
# Needs `root`, `say`, `demo_folder` and `lock_folder`.
# shellcheck shell=bash

# demo_sync [--json]: status 7 when a promise is broken.
demo_sync() {
	local folder
	if [ $# -gt 1 ] || { [ $# -eq 1 ] && [ "$1" != --json ]; }; then
		say "--sync takes --json and nothing else"
		return 2
	fi
	"$root/scripts/setup"
	"$root/scripts/setup" --cloud
	use_node
	folder=$(demo_folder) || return $?
	lock_folder "$folder" || return $?
	rm -rf "$folder/sync"
	mkdir -m 0700 "$folder/sync"
	exec node --disable-warning=ExperimentalWarning "$root/scripts/lib/demo-sync.ts" "$folder/sync" "$@" </dev/null
}
