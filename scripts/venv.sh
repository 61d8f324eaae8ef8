#!/usr/bin/env bash
# scripts/venv.sh VENV [EXTRA…]: creates a Python environment with this tree's relay700 and the given extras of pyproject.toml
# (parquet, otlp, wav, test, lint, docs), locked by requirements/*.txt. Does nothing if it is up to date; earlier extras are kept. It is
# re-created if its Python or the folder has changed. On Debian it installs python3-venv if missing. VENV is one of
#   .venv           production: the distribution's Python, which is built for speed, else the newest
#   .venv-test      tests and checks: Python 3.11, the only one supported by the softphone pjsua2, else as .venv
#   .venv-test-3.13 tests with that Python
#   .venv-compiled  as .venv, but empty: scripts/compile fills it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=$1
shift
stamp=$venv/relay700.stamp
version=$(cat pyproject.toml requirements/*.txt | sha256sum | cut -d' ' -f1)

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

find_named_python() {
    local python
    for python in $(type -aP "python$1"); do
        if "$python" -c "" 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    echo "python$1 not found: install it, then start again" >&2
    exit 1
}

find_python() {
    case $venv in
        .venv-test) find_test_python ;;
        .venv-test-*) find_named_python "${venv#.venv-test-}" ;;
        *) find_product_python ;;
    esac
}

# Without the patch level: a security update of Python must not require the network at the next start.
identity() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2], sys.base_prefix)'
    pwd -P
}

make_venv() {
    has_venv "$python" || scripts/apt.sh "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    echo "creating $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
    identity "$python" >"$venv/relay700.python"
}

# The requested extras, and earlier ones that still exist.
wanted() {
    local name
    {
        printf '%s\n' run "$@"
        for name in $(cut -sd' ' -f2 "$stamp" 2>/dev/null); do
            [[ ! -e requirements/$name.txt ]] || echo "$name"
        done
    } | sort -u
}

install() {
    local name wanted files=()
    mapfile -t wanted < <(wanted "$@")
    printf "$version %s\n" "${wanted[@]}" | cmp -s - "$stamp" && return
    echo "installing relay700 and its requirements (${wanted[*]}) into $venv"
    for name in "${wanted[@]}"; do files+=(--requirement "requirements/$name.txt"); done
    pip_install --require-hashes "${files[@]}"
    pip_install --no-deps --no-build-isolation --editable . # the build backend is in requirements/run.txt
    printf "$version %s\n" "${wanted[@]}" >"$stamp"
}

pip_install() {
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

python=$(find_python)
mkdir -p "$venv"
exec 9<"$venv" # one at a time. The folder itself: `venv --clear` deletes what is in it
flock 9
[[ $(identity "$python") == "$(cat "$venv/relay700.python" 2>/dev/null)" ]] && "$venv/bin/python" -c "" 2>/dev/null || make_venv
[[ $venv == .venv-compiled ]] || install "$@"
