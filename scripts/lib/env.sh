# What every script here agrees on: where the caches are, which node runs. Sourced.
# Sets `root` (the checkout), `cache`; offers `use_node` and `is_set_up`.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)

if [ -z "${HOME:-}" ]; then
	HOME=$(getent passwd "$(id -u)" | cut -d: -f6)
	export HOME="${HOME:-/root}"
fi
cache="${PORT_IMAGE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/port-image}"

# Administration programs (mkfs.xfs, sfdisk, lvm) are not on everybody's PATH.
case ":$PATH:" in
*:/usr/sbin:*) ;;
*) PATH="$PATH:/usr/sbin:/sbin" ;;
esac
export PATH

# The appliance is started by us, not by a libvirt daemon.
export LIBGUESTFS_BACKEND=direct

# node_is_new_enough NODE: whether this program runs and is 22.19 or newer (package.json, "engines").
node_is_new_enough() {
	local version major minor
	version=$("$1" --version 2>/dev/null) || return 1
	[[ $version =~ ^v([0-9]+)\.([0-9]+)\. ]] || return 1
	major=${BASH_REMATCH[1]} minor=${BASH_REMATCH[2]}
	((major > 22 || (major == 22 && minor >= 19)))
}

# use_node: puts a node that is new enough first on PATH: the machine's own, else the one set-up fetched.
use_node() {
	local own
	own=$(command -v node) && node_is_new_enough "$own" && return 0
	node_is_new_enough "$cache/node-24/bin/node" || return 1
	export PATH="$cache/node-24/bin:$PATH"
}

# lock_digest: what node_modules has to match.
lock_digest() {
	sha256sum <"$root/package-lock.json" | cut -d' ' -f1
}

# npm_is_done: whether node_modules was installed from the present package-lock.json.
npm_is_done() {
	local stamp=''
	[ -r "$root/node_modules/.set-up" ] && read -r stamp <"$root/node_modules/.set-up"
	[ -n "$stamp" ] && [ "$stamp" = "$(lock_digest)" ]
}
