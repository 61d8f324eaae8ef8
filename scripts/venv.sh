#!/usr/bin/env bash
# scripts/venv.sh [EXTRA…]: makes .venv with relay700 installed in it, and the named extras of pyproject.toml (test, lint).
# Does nothing where that is so already. On Debian it installs python3-venv where Python has come without it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

stamp=.venv/relay700.stamp
version=$(sha256sum pyproject.toml | cut -d' ' -f1)

missing_extras() {
    local extra
    for extra in relay700 "$@"; do
        grep -qsx "$version $extra" "$stamp" || echo "$extra"
    done
}

find_python() {
    local python
    for python in python3.11 python3; do
        if command -v "$python" >/dev/null && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            echo "$python"
            return
        fi
    done
    echo "relay700 needs Python 3.11 or later: install it (Debian: apt install python3), then start again" >&2
    exit 1
}

as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "run this as root first, then start again: $*" >&2
        exit 1
    fi
}

make_venv() {
    local python
    python=$(find_python)
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        echo "installing python3-venv"
        as_root apt-get update -qq
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y python3-venv </dev/null >/dev/null
    fi
    echo "making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
}

[[ -x .venv/bin/pip ]] && .venv/bin/python -c "" 2>/dev/null || make_venv
mapfile -t missing < <(missing_extras "$@")
((${#missing[@]})) || exit 0

extras=$(IFS=,; echo "${*:-}")
echo "installing relay700${extras:+ with $extras} into .venv"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".${extras:+[$extras]}"
[[ -f $stamp ]] && sed -i "/^$version /!d" "$stamp"
printf "$version %s\n" "${missing[@]}" >>"$stamp"
