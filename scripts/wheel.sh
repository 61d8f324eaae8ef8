#!/usr/bin/env bash
# scripts/wheel.sh [--if-built] PYTHON: prints the path of this tree's compiled wheel for PYTHON: the modules of a call's path compiled
# by mypyc (pyproject.toml, [tool.hatch.build.targets.wheel.hooks.mypyc]). It is kept in build/, and made anew when code or
# requirements have changed, not for another README.md, which is its description; --if-built fails then instead. Compiler and
# dependencies are locked by requirements/*.txt. On Debian it installs the C compiler and Python's headers if missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if_built=false
[[ $1 != --if-built ]] || { if_built=true && shift; }
python=$1
inputs=(pyproject.toml relay requirements/run.txt requirements/compile.txt)
kept=$PWD/build/wheel-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

files() {
    find "${inputs[@]}" -type f ! -name '*.pyc' -print0 | sort -z
}

finds_python_h() {
    "${CC:-gcc}" -E -I "$headers" -include Python.h - </dev/null &>/dev/null
}

need_compiler() {
    local headers
    headers=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    finds_python_h || scripts/apt.sh gcc libc6-dev python3-dev
    finds_python_h || { echo "$0: ${CC:-gcc} does not find $headers/Python.h" >&2; exit 1; }
}

# The build hook writes shared objects beside the sources, so it runs on a copy, whose path is kept out of them. mypyc writes in the
# order of addresses in memory: they are the same in each run with the same environment, where the system allows that (setarch).
build() {
    local epoch same_addresses=(setarch -R)
    "${same_addresses[@]}" true 2>/dev/null || same_addresses=()
    copy=$(mktemp -d /tmp/relay700.XXXXXXXXXX) # not in TMPDIR: the length of its name counts too
    trap 'rm -rf "$copy"' EXIT
    cp "$(type -P true)" "$copy" && "$copy/true" || { echo "$0: /tmp is noexec: mount -o remount,exec /tmp" >&2; exit 1; }
    need_compiler
    echo "compiling relay700 for $("$python" --version): this takes a minute or two" >&2
    rm -rf "$kept"
    mkdir "$copy/objects"
    cp LICENSE README.md "$copy"
    files | xargs -0 cp --parents -t "$copy"
    "$python" -m venv "$copy/venv"
    nice "$copy/venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
        -r requirements/run.txt -r requirements/compile.txt
    epoch=$(scripts/epoch.sh "${inputs[@]}")
    (
        exec 9>&-
        cd "$copy" && nice "${same_addresses[@]}" env -i PATH="$PATH" ${CC:+CC="$CC"} SOURCE_DATE_EPOCH="$epoch" PYTHONHASHSEED=0 \
            HATCH_BUILD_HOOK_ENABLE_MYPYC=1 HATCH_MYPYC_BUILD_DIR="$copy/objects" \
            CFLAGS="${CFLAGS:-} -ffile-prefix-map=$copy=relay700" venv/bin/python -m hatchling build --target wheel --directory wheel >&2
    )
    mv "$copy/wheel" "$kept"
    echo "$version" >"$kept/tree"
}

mkdir -p build
exec 9>build/lock
flock 9
version=$(files | xargs -0 sha256sum | sha256sum | cut -d' ' -f1)
if [[ $(cat "$kept/tree" 2>/dev/null) != "$version" ]]; then
    if $if_built; then exit 1; fi
    build
fi
echo "$kept"/*.whl
