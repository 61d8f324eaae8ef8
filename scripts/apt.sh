#!/usr/bin/env bash
# scripts/apt.sh PACKAGE…: installs Debian packages, as root or with sudo. It asks only for sudo's password, and only at a
# terminal. Without permission it prints what to install.
set -euo pipefail

refuse() {
    echo "$0: $1: install these Debian packages, then start again: ${*:2}" >&2
    exit 1
}

as_root=()
if ((EUID != 0)); then
    command -v sudo >/dev/null || refuse "neither root nor sudo" "$@"
    as_root=(sudo)
    [[ -t 0 ]] || as_root+=(-n)
fi
command -v apt-get >/dev/null || refuse "no apt-get" "$@"
exec 9<"$0"
flock 9 # apt-get fails if another one runs
echo "installing $*" >&2
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -qq -y --no-install-recommends "$@" </dev/null >/dev/null
