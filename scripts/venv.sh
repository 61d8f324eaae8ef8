#!/usr/bin/env bash
# scripts/venv.sh VENV [EXTRA…]: makes an environment of Python with this tree's relay700 installed in it, and the named extras
# of pyproject.toml (test, lint). Does nothing where that is so already. One that another Python made, or that comes from
# another folder, is made anew. On Debian it installs python3-venv where Python has come without it. VENV is one of
#   .venv           serves: the distribution's own Python, which is built for speed, else the newest there is
#   .venv-test      tests and checks: Python 3.11, the only one that the tests' softphone pjsua2 comes for, else as .venv
#   .venv-compiled  as .venv, but left empty: scripts/compile fills it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=$1
shift
stamp=$venv/relay700.stamp
version=$(sha256sum pyproject.toml | cut -d' ' -f1)

has_venv() {
    "$1" -c 'import ensurepip' 2>/dev/null
}

find_product_python() {
    local python newest_first
    newest_first=$(compgen -c python3. | grep -xE 'python3\.[0-9]+' | sort -ruV) || true
    for python in /usr/bin/python3 $newest_first python3; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    echo "relay700 needs Python 3.11 or later: install it (Debian: apt install python3), then start again" >&2
    exit 1
}

find_test_python() {
    local python
    for python in $(type -aP python3.11); do
        if has_venv "$python"; then
            echo "$python"
            return
        fi
    done
    find_product_python
}

find_python() {
    if [[ $venv == .venv-test ]]; then find_test_python; else find_product_python; fi
}

# Not the patch level: a security update of Python must not ask for the network at the next start.
identity() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2], sys.base_prefix)'
    pwd -P
}

make_venv() {
    has_venv "$python" || scripts/apt.sh python3-venv
    echo "making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
    identity "$python" >"$venv/relay700.python"
}

missing_extras() {
    local extra
    for extra in relay700 "$@"; do
        grep -qsx "$version $extra" "$stamp" || echo "$extra"
    done
}

install() {
    local missing extras
    mapfile -t missing < <(missing_extras "$@")
    ((${#missing[@]})) || return 0
    extras=$(IFS=,; echo "$*")
    echo "installing relay700${extras:+ with $extras} into $venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".${extras:+[$extras]}"
    [[ ! -f $stamp ]] || sed -i "/^$version /!d" "$stamp"
    printf "$version %s\n" "${missing[@]}" >>"$stamp"
}

python=$(find_python)
[[ $(identity "$python") == "$(cat "$venv/relay700.python" 2>/dev/null)" ]] && "$venv/bin/python" -c "" 2>/dev/null || make_venv
[[ $venv == .venv-compiled ]] || install "$@"
