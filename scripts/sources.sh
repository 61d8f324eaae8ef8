#!/usr/bin/env bash
# scripts/sources.sh: prints Debian's repositories among apt's sources, as lines of sources.list; of a list of mirrors (mirror+file:,
# in cloud images) the first. Files and third parties of this machine are left out. Reads apt's lists: run apt-get update before.
set -euo pipefail

lines() {
    apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)' "Created-By: Packages" |
        while read -r origin uri suite component; do
            [[ $uri != mirror+file:* ]] || uri=$(url_of "${uri%/}")
            [[ $origin != Debian || $uri != http?(s):* ]] || echo "deb $uri $suite $component"
        done | awk '!seen[$0]++'
}

url_of() {
    grep -m1 -oE '^https?:\S+' "${1#mirror+file:}" || true
}

lines | grep . || { echo "$0: no Debian mirror (http: or https:) in apt's sources: add one in /etc/apt/sources.list.d" >&2; exit 1; }
