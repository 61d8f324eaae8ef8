#!/usr/bin/env bash
# scripts/apt.sh PACKAGE…: installs Debian packages, as root or with sudo. It asks only for sudo's password, and only at a
# terminal. If that fails it prints what to install. Services that come with them do not start, now or at boot: Kamailio's, for
# one, would take the relay's port.
set -euo pipefail

refuse() {
    echo "$0: $1: install these Debian packages, then start again: ${*:2}" >&2
    exit 1
}

units() {
    systemctl list-unit-files --no-legend --type=service,socket "$@" 2>/dev/null | cut -d' ' -f1 || true
}

command -v apt-get >/dev/null || refuse "no apt-get" "$@"
if ((EUID != 0)); then
    command -v sudo >/dev/null || refuse "neither root nor sudo" "$@"
    as_root=(sudo)
    [[ -t 0 ]] || as_root+=(-n)
    "${as_root[@]}" "$0" "$@" || refuse "not installed" "$@"
    exit
fi

eval "$(apt-config shell state Dir::State/d)"
exec 9>"$state/daily_lock" # of apt's timer. DPkg::Lock::Timeout is of dpkg's lock only, not of that of apt's lists
flock --nonblock 9 || { echo "waiting for another apt" >&2 && flock 9; }
echo "installing $*" >&2
before=$(units)
policy=${DPKG_ROOT:-}/usr/sbin/policy-rc.d
ours=$'#!/bin/sh\nexit 101 # while scripts/apt.sh runs'
if [[ ! -e $policy || $(<"$policy") == "$ours" ]]; then # ours: of a run that was killed
    trap 'rm -f "$policy"' EXIT
    echo "$ours" >"$policy"
    chmod 755 "$policy"
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -qq -y -o DPkg::Lock::Timeout=300 --no-install-recommends "$@" </dev/null >/dev/null
mapfile -t added < <(units --state=enabled | grep -vxF -- "$before")
[[ ! $before || ${#added[@]} == 0 ]] || systemctl disable --quiet "${added[@]}" ||
    echo "$0: these start at the next boot: ${added[*]}" >&2
