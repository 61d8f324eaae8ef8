#!/usr/bin/env bash
# deb.sh WHEEL: makes dist/relay700_VERSION_ARCH.deb: the wheel and its locked dependencies in /opt/relay700, for the distribution's
# Python, with the units of config/systemd, /etc/relay700/relay.toml and the scripts in debian/. Two builds give the same bytes:
# nothing in it knows the folder or the time of its making.
set -euo pipefail

wheel=$1
python=/usr/bin/python3
tree=$(mktemp -d)
report=$(mktemp) # which wheels pip has installed, with their hashes
trap 'rm -rf "$tree" "$report"' EXIT
venv=$tree/opt/relay700
umask 022
chmod 755 "$tree"

install_packages() {
    .venv/bin/python -m pip --python "$venv/bin/python" install --quiet --disable-pip-version-check --no-compile "$@"
}

# Without pip, and of its programs with relay700 alone. From a folder, a wheel is installed without a note of where it lay.
make_venv() {
    "$python" -m venv --without-pip "$venv"
    install_packages --require-hashes --report "$report" -r requirements/run.txt
    install_packages --no-deps --no-index --find-links "$(dirname "$wheel")" "relay700==$version"
    find "$venv/bin" -type f ! -name relay700 -delete
    rm -rf "$venv/include" "$venv/.gitignore"
    find "$venv/bin" "$venv/pyvenv.cfg" -type f -exec sed -i "s#$tree/#/#g" {} +
    find "$venv/lib" -name RECORD -exec sed -i '/^\.\.\/\.\.\/\.\.\/bin\//d' {} +
    PYTHONHASHSEED=0 "$venv/bin/python" -m compileall -q --invalidation-mode unchecked-hash -s "$tree" -p / "$venv/lib"
}

add_files() {
    local unit doc=$tree/usr/share/doc/relay700
    for unit in relay700.service relay700@.service; do
        install -D -m 644 <(sed -n 's#/opt/relay700/.venv/#/opt/relay700/#; /^\[Unit\]/,$p' "config/systemd/$unit") \
            "$tree/usr/lib/systemd/system/$unit"
    done
    install -D -m 640 <(sed 's/^format = "console"/format = "json"/' config/relay.toml) "$tree/etc/relay700/relay.toml"
    install -d "$tree/usr/bin" "$tree/usr/share/man/man1" "$doc"
    LC_ALL=C.UTF-8 "$venv/bin/python" scripts/dist.d/manual.py "$version" "$SOURCE_DATE_EPOCH" | gzip -9n >"$tree/usr/share/man/man1/relay700.1.gz"
    ln -s /opt/relay700/bin/relay700 "$tree/usr/bin/relay700"
    install -m 644 scripts/dist.d/copyright "$doc/copyright"
    install -D -m 644 scripts/dist.d/lintian-overrides "$tree/usr/share/lintian/overrides/relay700"
    changelog | gzip -9n >"$doc/changelog.gz"
    cp -r --no-preserve=mode ./*.md docs config "$doc"
    install -D -m 644 -t "$venv/requirements" requirements/{parquet,otlp,wav}.txt
}

changelog() {
    printf 'relay700 (%s) unstable; urgency=medium\n\n  * /usr/share/doc/relay700/CHANGELOG.md has what is new.\n\n -- %s  %s\n' \
        "$debian_version" "$(maintainer)" "$(LC_ALL=C date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")"
}

# Who publishes this: DEBFULLNAME and DEBEMAIL, else the author of the last commit.
maintainer() {
    [[ -z ${DEBEMAIL:-} ]] || { echo "${DEBFULLNAME:-relay700} <$DEBEMAIL>" && return; }
    git log -1 --format='%an <%ae>' 2>/dev/null || echo "${DEBFULLNAME:-relay700} <root@localhost>"
}

add_control() {
    local minor
    minor=$("$python" -c 'import sys; print(sys.version_info[1])')
    mkdir "$tree/DEBIAN"
    install -m 755 -t "$tree/DEBIAN" scripts/dist.d/debian/*
    find "$tree/etc" -type f -printf '/etc/%P\n' >"$tree/DEBIAN/conffiles"
    (cd "$tree" && find opt usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) >"$tree/DEBIAN/md5sums"
    chmod 644 "$tree/DEBIAN/"{conffiles,md5sums}
    cat >"$tree/DEBIAN/control" <<CONTROL
Package: relay700
Version: $debian_version
Architecture: $architecture
Maintainer: $(maintainer)
Section: comm
Priority: optional
Installed-Size: $(du -sk --apparent-size "$tree" | cut -f1)
Depends: python3 (>= 3.$minor~), python3 (<< 3.$((minor + 1))~), libc6 (>= $(getconf GNU_LIBC_VERSION | cut -d' ' -f2)), ca-certificates, passwd
Suggests: rtpengine-daemon, postgresql
Description: SIP engine that masks phone numbers behind China's 700 numbers
 A back-to-back relay between SIP trunks and PBXs: it connects two parties by
 a 15-digit 700 number, and shows neither the number of the other.
CONTROL
}

version=$(.venv/bin/python -c 'import tomllib; print(tomllib.load(open("pyproject.toml", "rb"))["project"]["version"])')
debian_version=$(sed -E 's/(a|b|rc)([0-9]+)/~\1\2/' <<<"$version")
architecture=$(dpkg --print-architecture)
deb=dist/relay700_${debian_version}_$architecture.deb
make_venv
add_files
add_control
find "$tree" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
rm -f dist/*.deb
dpkg-deb --root-owner-group --threads-max=1 -Zxz --build "$tree" "$deb" # threads would make other bytes
.venv-dist/bin/python scripts/dist.d/sbom.py --environment "$venv" --report "$report" "$deb"
