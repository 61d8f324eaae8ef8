#!/usr/bin/env bash
# scripts/root.sh DIR [PACKAGE…]: makes a clean Debian system in DIR, of this machine's release, with the given packages: for chroot
# and systemd-nspawn. Needs root or sudo, and apt's mirror, which is configured inside, too. No service starts while it is made.
# The first time takes a minute or two. Then, for 30 days, a copy in ${RELAY700_ROOTS:-~/.cache/relay700/roots} is unpacked in a
# second: 180 MB and more for each choice of packages.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${RELAY700_ROOTS:-${XDG_CACHE_HOME:-$HOME/.cache}/relay700/roots}
((EUID == 0)) || exec sudo env RELAY700_ROOTS="$cache" "$here/root.sh" "$@"

fail() {
    echo "$0: $1" >&2
    exit 1
}

bootstrap() {
    local mirror
    "$here/apt.sh" debootstrap debian-archive-keyring # and apt's lists, which tell what is Debian's
    mirror=$("$here/sources.sh" | awk -v release="$release" '$3 == release && !n++ { print $2 }')
    [[ $mirror ]] || fail "no mirror of Debian $release in apt's sources"
    debootstrap --variant=minbase --keyring=/usr/share/keyrings/debian-archive-keyring.gpg "$release" "$1" "$mirror" >&2
    "$here/sources.sh" >"$1/etc/apt/sources.list"
    cp -r /etc/apt/apt.conf.d /etc/apt/auth.conf.d "$1/etc/apt/"
}

# add ROOT PACKAGE…
add() {
    printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d" # no service starts
    chmod 755 "$1/usr/sbin/policy-rc.d"
    DEBIAN_FRONTEND=noninteractive unshare --mount sh -euc '
        mount -t proc proc "$1/proc"
        cp /etc/resolv.conf "$1/etc/resolv.conf"
        root=$1
        shift
        chroot "$root" apt-get update -qq
        chroot "$root" apt-get install -qq -y --no-install-recommends "$@" </dev/null' - "$@" >&2
    rm -r "$1/usr/sbin/policy-rc.d" "$1"/var/lib/apt/lists/*
}

# copy_of PACKAGE…: the file of the copy with these packages.
copy_of() {
    echo "$cache/$release-$(printf '%s\n' "$@" | sort -u | sha256sum | cut -c-12).tar"
}

# keep ROOT FILE
keep() {
    rm -f "$1"/var/cache/apt/archives/*.deb
    tar --numeric-owner -cf "$2.part" -C "$1" .
    mv "$2.part" "$2"
}

unpack() {
    tar --numeric-owner -xpf "$1" -C "$2"
}

(($#)) || fail "usage: scripts/root.sh DIR [PACKAGE…]"
root=$1
shift
[[ ! -e $root || -z $(ls -A "$root") ]] || fail "$root is not empty"
release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
mkdir -p -m 700 "$cache" # apt's configuration may hold a password
exec 9>"$cache/lock"
flock 9
find "$cache" -name '*.tar' -mtime +30 -delete
base=$(copy_of)
whole=$(copy_of "$@")
mkdir -p "$root"
chmod 755 "$root"
if [[ -e $whole ]]; then
    unpack "$whole" "$root"
    exit
fi
if [[ -e $base ]]; then
    unpack "$base" "$root"
else
    bootstrap "$root"
    keep "$root" "$base"
fi
if (($#)); then
    add "$root" "$@"
    keep "$root" "$whole"
fi
