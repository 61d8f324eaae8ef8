#!/usr/bin/env bash
# scripts/asterisk.sh: makes the Asterisk that the tests drive, where it is not there yet, and prints its folder: a Debian system
# of its own under ${RELAY700_ASTERISK:-~/.cache/relay700/asterisk}, since this Debian has no Asterisk. From the mirror that apt is
# set to; takes half a minute and 450 MB, as root or with sudo. Fails where no suite has it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=${RELAY700_ASTERISK:-${XDG_CACHE_HOME:-$HOME/.cache}/relay700/asterisk}
suites=(forky sid) # both have Asterisk 22
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
as_root=()
((EUID == 0)) || as_root=(sudo)

# The first one of apt's own sources that is no repository of security updates alone.
mirror() {
    apt-get indextargets --format '$(REPO_URI) $(RELEASE)' | awk '/^https?:/ && !/security/ && !n++ { print $1 }'
}

# Nothing in it is ever started as a service, and a mirror that stands still is as good as any.
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
    PATH="$PATH:/usr/sbin" command -v debootstrap >/dev/null || scripts/apt.sh debootstrap debian-archive-keyring
    source=$(mirror)
    [[ $source ]] || { echo "$0: apt names no mirror to take Asterisk from" >&2; exit 1; }
    mkdir -p "$(dirname "$folder")"
    for suite in "${suites[@]}"; do
        echo "making $folder from Debian $suite" >&2
        if make_from "$suite" "$source" 2>"$folder.log"; then return; fi
        tail -5 "$folder.log" >&2
    done
    echo "$0: none of ${suites[*]} has given an Asterisk; all that was said is in $folder.log" >&2
    exit 1
}

[[ -x $folder/usr/sbin/asterisk ]] || make
echo "$folder"
