#!/usr/bin/env bash
# image.sh DEB: makes dist/relay700-VERSION-ARCH.docker.tar, the image of the Dockerfile, of that package and a clean Debian
# (scripts/root.sh), once a call has passed through it. No registry of images is asked, and nothing of this machine's apt is in it. Its
# format is Docker's, since OCI's has no health check.
set -euo pipefail

deb=$1
folder=$(mktemp -d)
trap 'build rmi --all --force >/dev/null; rm -rf "$folder"' EXIT

build() {
    buildah --root "$folder/storage" --runroot "$folder/run" "$@"
}

scripts/root.sh "$folder/root" ca-certificates python3
(
    cd "$folder/root/etc"
    : >apt/sources.list
    rm -rf apt/auth.conf.d/* resolv.conf
    find apt/apt.conf.d -type f ! -name 01autoremove ! -name 70debconf -delete
)
find "$folder/root/var/log" "$folder/root/var/cache/ldconfig" -type f -delete
IFS=_ read -r _ version architecture <<<"$(basename "$deb" .deb)"
name=relay700:${version/\~/}
base=$(build from scratch)
build add --quiet "$base" "$folder/root" / >/dev/null
build commit --quiet --timestamp "$SOURCE_DATE_EPOCH" "$base" base >/dev/null
build rm "$base" >/dev/null
files=$(ulimit -n) processes=$(ulimit -u)
limits=(--ulimit "nofile=$files:$files" --ulimit "nproc=$processes:$processes")
build build --quiet --isolation chroot --pull=never --network host --format docker --timestamp "$SOURCE_DATE_EPOCH" "${limits[@]}" \
    --build-arg SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" \
    --build-arg BASE=localhost/base --build-arg PACKAGE=given --tag "$name" . >/dev/null
container=$(build from "${limits[@]}" "$name")
build run --isolation chroot "$container" -- /opt/relay700/bin/relay700 demo | grep answered
build rm "$container" >/dev/null
rm -f dist/*.docker.tar
build push --quiet "$name" "docker-archive:dist/relay700-${version/\~/}-$architecture.docker.tar:$name"
