#!/usr/bin/env bash
# scripts/epoch.sh [PATH…]: prints the time that all that is built bears, in seconds since 1970: that of the last commit (to PATH…).
# Outside git it is SOURCE_DATE_EPOCH, else 2020-02-02.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
git log -1 --format=%ct -- "$@" 2>/dev/null || echo "${SOURCE_DATE_EPOCH:-1580601600}"
