# Where the data is: finds the provision document and the right to read. Sourced by port-image-data.
# shellcheck shell=sh
#
# The first document that names the data set counts:
#
#   1  systemd credential port-image.provision
#   2  vendor_data2.json, key port_image         config drive, else OpenStack's metadata service
#   3  vendor_data.json, key port_image          the same; on a NoCloud disk port-image.json
#   4  /run/port-image/provision.json            a user-data part writes it; kept until everything is restored
#   5  the document meta.port_image points to    instance metadata, a URL in parts of 255 characters
#   6  /etc/port-image/provision.json, then /usr/lib/port-image/provision.json: the image's own default

# Most bytes of a document that comes over the network.
DOCUMENT_BYTES=1048576
METADATA=${PORT_IMAGE_METADATA:-}
# cloud-init writes the files of user data in the first boot alone, and /run is empty after a reboot.
SAVED=$ROOT/var/lib/port-image/provision.json

json_get() { # FILE POINTER
  JSON_POINTER=$2 awk -f "$LIB/json-get.awk" "$1" 2>/dev/null
}

# Nothing that would end a quoted word of curl's configuration or start another line of it.
is_url() { # TEXT
  case $1 in
    *[!A-Za-z0-9%:/?=\&.,_~@+*\;!\$\'\(\)-]*) return 1 ;;
    http://?* | https://?*) return 0 ;;
  esac
  return 1
}

# Copies the files of interest from a metadata disk, wherever it is mounted or not.
read_disk() { # LABEL
  for label in "$1" "$(printf '%s' "$1" | tr '[:lower:]' '[:upper:]')"; do
    dev=/dev/disk/by-label/$label
    [ -e "$dev" ] || dev=$(blkid -L "$label" 2>/dev/null) || continue
    [ -e "$dev" ] || continue
    real=$(readlink -f "$dev")
    # Not where another process of ours has mounted it for a moment.
    dir=$(awk -v d="$real" -v own="$RUN/disk." '$1 == d && index($2, own) != 1 { print $2; exit }' /proc/mounts)
    if [ -n "$dir" ]; then
      copy_documents "$dir"
    else
      mkdir -p "$RUN/disk.$$"
      if mount -o ro,nodev,nosuid,noexec "$real" "$RUN/disk.$$" 2>/dev/null; then
        copy_documents "$RUN/disk.$$"
        umount "$RUN/disk.$$"
      fi
      rmdir "$RUN/disk.$$" 2>/dev/null
    fi
    return 0
  done
}

copy_documents() { # FOLDER
  for document in meta_data.json vendor_data2.json vendor_data.json; do
    [ -f "$1/openstack/latest/$document" ] && cp "$1/openstack/latest/$document" "$DOCUMENTS/$document"
  done
  [ -f "$1/port-image.json" ] && cp "$1/port-image.json" "$DOCUMENTS/seed.json"
  return 0
}

# OpenStack's metadata service, asked only on OpenStack. What it says replaces what the config drive says: the disk
# is as old as the instance.
read_service() {
  case $(cat /sys/class/dmi/id/product_name 2>/dev/null) in OpenStack*) ;; *) return 0 ;; esac
  for document in meta_data.json vendor_data2.json vendor_data.json; do
    curl -q -s -f --noproxy '*' --connect-timeout 5 --max-time 10 --max-filesize "$DOCUMENT_BYTES" \
      -o "$DOCUMENTS/$document.new" "http://169.254.169.254/openstack/latest/$document" 2>/dev/null || continue
    mv -f "$DOCUMENTS/$document.new" "$DOCUMENTS/$document"
  done
  return 0
}

# Several data sets are fetched at once: each process has its own copy of the documents.
gather_documents() {
  DOCUMENTS=$RUN/source.$$
  rm -rf "$DOCUMENTS"
  mkdir -p "$DOCUMENTS" || return 1
  if [ -n "$METADATA" ]; then
    copy_documents "$METADATA"
  elif [ -z "$ROOT" ]; then
    read_disk config-2
    read_disk cidata
    # A refused URL may have a successor that only the service knows.
    if [ -n "$REFUSED" ] || ! { [ -e "$DOCUMENTS/meta_data.json" ] || [ -e "$DOCUMENTS/seed.json" ]; }; then
      read_service
    fi
  fi
  return 0
}

keep_document() {
  [ -r "$RUN/provision.json" ] || return 0
  if [ -r "$SAVED" ] && [ "$(sum "$SAVED")" = "$(sum "$RUN/provision.json")" ]; then return 0; fi
  { cp "$RUN/provision.json" "$SAVED.$$" && chmod 0600 "$SAVED.$$" && mv -f "$SAVED.$$" "$SAVED"; } 2>/dev/null ||
    rm -f "$SAVED.$$"
}

# Nobody needs it any more, and it may hold secrets.
drop_document() {
  [ -e "$SAVED" ] || return 0
  (
    for id in $(ids); do
      load "$id"
      is_done || exit 1
    done
  ) && rm -f "$SAVED"
}

# Runs `$1 DOCUMENT PREFIX` on each document in the fixed order until one answers.
first_document() { # FUNCTION
  "$1" "${CREDENTIALS_DIRECTORY:-/nonexistent}/port-image.provision" '' ||
    "$1" "$ROOT/run/credentials/@system/port-image.provision" '' ||
    "$1" "$DOCUMENTS/vendor_data2.json" /port_image ||
    "$1" "$DOCUMENTS/vendor_data.json" /port_image ||
    "$1" "$DOCUMENTS/seed.json" '' ||
    "$1" "$RUN/provision.json" '' ||
    "$1" "$SAVED" '' ||
    { follow_pointer && "$1" "$POINTED" ''; } ||
    "$1" "$ROOT/etc/port-image/provision.json" '' ||
    "$1" "$LIB/provision.json" ''
}

# Sets URL, EXPIRES and AUTH_… from the first document that names this data set.
find_url() {
  URL='' EXPIRES='' LOOKED='' AUTH_TYPE='' AUTH_URL='' AUTH_ID='' AUTH_SECRET=''
  gather_documents || return 1
  keep_document
  first_document try_document
  found=$?
  rm -rf "$DOCUMENTS"
  return "$found"
}

try_document() { # FILE POINTER
  [ -r "$1" ] || return 1
  LOOKED="$LOOKED ${1##*/}"
  [ "$(json_get "$1" "$2/version")" = 1 ] || return 1
  entry=$2/data/$ID
  URL=$(json_get "$1" "$entry/url") || { URL=''; return 1; }
  if ! is_url "$URL"; then
    URL=''
    say "the URL in ${1##*/} is none, or has characters no URL has"
    return 1
  fi
  EXPIRES=$(json_get "$1" "$entry/expires") || EXPIRES=''
  # It is shown on the console: a time and nothing else.
  case $EXPIRES in *[!0-9A-Za-z:.+-]*) EXPIRES='' ;; esac
  AUTH_TYPE=$(json_get "$1" "$entry/auth/type") || { AUTH_TYPE=''; return 0; }
  AUTH_URL=$(json_get "$1" "$entry/auth/authUrl")
  AUTH_ID=$(json_get "$1" "$entry/auth/id")
  AUTH_SECRET=$(json_get "$1" "$entry/auth/secret")
  return 0
}

# Prints the ids to prefetch, one a line, from the first document that has such a list. Status 2: the document that
# may have it cannot be fetched now.
prefetch_list() {
  POINTER_DOWN=''
  gather_documents || return 1
  first_document print_prefetch
  found=$?
  rm -rf "$DOCUMENTS"
  if [ "$found" != 0 ] && [ -n "$POINTER_DOWN" ]; then found=2; fi
  return "$found"
}

print_prefetch() { # FILE POINTER
  [ -r "$1" ] && [ "$(json_get "$1" "$2/version")" = 1 ] || return 1
  n=0
  while id=$(json_get "$1" "$2/prefetch/$n"); do
    printf '%s\n' "$id"
    n=$((n + 1))
  done
  [ "$n" -gt 0 ]
}

# ---- instance metadata -------------------------------------------------------------------------------------------

# meta.port_image of the instance is the URL of the document itself; Nova allows 255 characters a value, so the rest
# follows in port_image_2, port_image_3, … Sets POINTED to the copy in /run.
follow_pointer() {
  [ -r "$DOCUMENTS/meta_data.json" ] || return 1
  pointer=$(json_get "$DOCUMENTS/meta_data.json" /meta/port_image) || return 1
  n=2
  while part=$(json_get "$DOCUMENTS/meta_data.json" "/meta/port_image_$n"); do
    pointer=$pointer$part
    n=$((n + 1))
  done
  if ! is_url "$pointer"; then
    LOOKED="$LOOKED meta.port_image(no URL)"
    return 1
  fi
  POINTED=$RUN/pointed-$(printf '%s' "$pointer" | sha256sum | cut -c1-16).json
  # A copy serves until what it says is refused.
  if [ -r "$POINTED" ] && [ -z "$REFUSED" ]; then return 0; fi
  # The limit of the shell holds where curl cannot know the length beforehand; blocks of 512 bytes.
  code=$(
    ulimit -f $((DOCUMENT_BYTES / 512)) 2>/dev/null
    printf 'url = "%s"\n' "$pointer" | curl -q -s -f -K - --proto '=http,https' --connect-timeout 20 --max-time 60 \
      --max-filesize "$DOCUMENT_BYTES" -o "$POINTED.$$" -w '%{http_code}' 2>/dev/null
  )
  rc=$?
  if [ $rc = 0 ] && [ "$(size "$POINTED.$$")" -le "$DOCUMENT_BYTES" ] && [ "$(json_get "$POINTED.$$" /version)" = 1 ]; then
    mv -f "$POINTED.$$" "$POINTED"
    return 0
  fi
  rm -f "$POINTED.$$"
  if [ $rc = 0 ]; then code='not a provision document'; fi
  if [ $rc = 63 ]; then code='larger than 1 MiB'; fi
  LOOKED="$LOOKED meta.port_image(${code:-curl error $rc})"
  # An older copy is better than nothing.
  [ -r "$POINTED" ] && return 0
  POINTER_DOWN=yes
  return 1
}

# ---- application credentials -------------------------------------------------------------------------------------

json_text() { printf '%s' "$1" | sed 's/[\\"]/\\&/g'; }

# Gets a token; sets TOKEN. The secret goes to curl by a file of mode 0600 in /run, never by an argument.
# Status 1: refused for good; 2: later. REASON says why.
get_token() {
  [ "$AUTH_TYPE" = v3applicationcredential ] || { REASON="the way to sign in is unknown: $AUTH_TYPE"; return 1; }
  is_url "$AUTH_URL" || { REASON='the address of Keystone is no URL'; return 1; }
  case $AUTH_ID$AUTH_SECRET in '' | *[[:cntrl:]]*) REASON='the application credential has odd characters'; return 1 ;; esac
  base=${AUTH_URL%/}
  case $base in */v3) ;; *) base=$base/v3 ;; esac
  box=$RUN/token.$$
  mkdir -p "$box" || { REASON="$RUN cannot be written"; return 2; }
  printf '{"auth":{"identity":{"methods":["application_credential"],"application_credential":{"id":"%s","secret":"%s"}}}}' \
    "$(json_text "$AUTH_ID")" "$(json_text "$AUTH_SECRET")" >"$box/body"
  http=$(printf 'url = "%s/auth/tokens"\ndata-binary = "@%s/body"\nheader = "Content-Type: application/json"\n' "$base" "$box" |
    curl -q -s -f -K - --proto '=http,https' --connect-timeout 20 --max-time 60 -D "$box/head" -o /dev/null \
      -w '%{http_code}' 2>/dev/null)
  rc=$?
  TOKEN=$(awk 'tolower($1) == "x-subject-token:" { sub(/\r$/, "", $2); print $2; exit }' "$box/head" 2>/dev/null)
  rm -rf "$box"
  case $rc:$http in
    0:*) ;;
    22:401 | 22:403) TOKEN='' REASON="Keystone refuses the application credential ($http): it is expired or deleted"; return 1 ;;
    *) TOKEN='' REASON="Keystone gives no token (curl error $rc, HTTP ${http:-000})"; return 2 ;;
  esac
  case $TOKEN in '' | *[!A-Za-z0-9_=.+/-]*) TOKEN='' REASON='Keystone gives no token'; return 2 ;; esac
}
