#!/usr/bin/env bash
# scripts/asterisk.sh: installs the tests' Asterisk if missing, and prints its folder: a separate Debian system in
# ${RELAY700_ASTERISK:-~/.cache/relay700/asterisk}, because this Debian release has no Asterisk. Needs root or sudo, half a
# minute and 450 MB, and uses apt's mirror. Fails if no suite has the package.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=${RELAY700_ASTERISK:-${XDG_CACHE_HOME:-$HOME/.cache}/relay700/asterisk}
suites=(forky sid) # both have Asterisk 22
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
as_root=()
((EUID == 0)) || as_root=(sudo)

# Start no services in it, and accept outdated mirrors.
settle() {
    printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d"
    chmod 755 "$1/usr/sbin/policy-rc.d"
    echo 'Acquire::Check-Valid-Until "false";' >"$1/etc/apt/apt.conf.d/90relay700"
}

make_from() {
    local suite=$1 source=$2 at=$folder.making
    "${as_root[@]}" rm -rf "$at"
    "${as_root[@]}" debootstrap --variant=minbase --keyring="$keyring" "$suite" "$at" "$source" >&2 || return 1
    "${as_root[@]}" bash -c "$(declare -f settle); settle '$at'"
    "${as_root[@]}" chroot "$at" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq -y --no-install-recommends asterisk </dev/null >&2 || return 1
    "${as_root[@]}" rm -rf "$at/var/cache/apt/archives" "$at/var/lib/apt/lists"
    "${as_root[@]}" mv -T "$at" "$folder"
}

make() {
    local suite source
    scripts/apt.sh debootstrap debian-archive-keyring # and apt's lists, which tell what is Debian's
    source=$(scripts/sources.sh | awk '!/security/ && !n++ { print $2 }')
    mkdir -p "$(dirname "$folder")"
    for suite in "${suites[@]}"; do
        echo "installing Debian $suite into $folder" >&2
        if make_from "$suite" "$source" 2>"$folder.log"; then return; fi
        tail -5 "$folder.log" >&2
    done
    echo "$0: no Asterisk could be installed from ${suites[*]}; see $folder.log" >&2
    exit 1
}

[[ -x $folder/usr/sbin/asterisk ]] || make
echo "$folder"
