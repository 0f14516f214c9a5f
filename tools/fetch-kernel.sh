#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Obtains Debian's stock cloud kernel and prints the path of its bzImage; its modules are in the
# directory `modules` beside it. The package is downloaded and unpacked under .cache/ (never
# installed) and kept there by version; no root needed. When the archive cannot be reached, the
# newest kernel in the cache is used.
# TRIVISOR_KERNEL=PATH names a kernel of your own instead.
set -eu

if [ -n "${TRIVISOR_KERNEL:-}" ]; then
    echo "$TRIVISOR_KERNEL"
    exit 0
fi
root=$(cd "$(dirname "$0")/.." && pwd)
cache="$root/.cache/kernel"
mkdir -p "$cache"

newest_cached() {
    found=$(ls -t "$cache"/*/vmlinuz 2>/dev/null | head -n 1)
    [ -n "$found" ] || { echo "fetch-kernel: $1, and none is cached" >&2; exit 1; }
    echo "$found"
    exit 0
}

resolve() { # the package the metapackage depends on, and its version
    package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
    [ -n "$package" ] &&
        version=$(apt-cache policy "$package" | sed -n 's/^ *Candidate: //p') &&
        [ -n "$version" ] && [ "$version" != "(none)" ]
}

refresh() {
    if [ "$(id -u)" -eq 0 ]; then
        apt-get update -qq </dev/null >&2
    elif command -v sudo >/dev/null 2>&1; then
        sudo -n apt-get update -qq </dev/null >&2
    else
        return 1
    fi
}

refreshed=no
if ! resolve; then
    refreshed=yes
    if ! refresh || ! resolve; then
        newest_cached "apt knows no linux-image-cloud-amd64"
    fi
fi
out="$cache/${package}_$(echo "$version" | tr ':/' '__')"
if [ ! -s "$out/vmlinuz" ] || [ ! -d "$out/modules" ]; then
    work=$(mktemp -d "$cache/.fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    echo "fetch-kernel: downloading $package $version" >&2
    download() { (cd "$work" && apt-get download -qq "$package" </dev/null >&2 2>"$work/log"); }
    if ! download; then
        # Stale lists name a version the archive has dropped.
        if [ $refreshed = yes ] || ! refresh || ! resolve || ! download; then
            cat "$work/log" >&2
            newest_cached "could not download $package"
        fi
        out="$cache/${package}_$(echo "$version" | tr ':/' '__')"
    fi
    dpkg-deb -x "$work"/*.deb "$work/root"
    mkdir -p "$out"
    # Another one may be doing the same: complete things appear under their names at once.
    [ -d "$out/modules" ] || mv -T "$work/root"/lib/modules/* "$out/modules" || [ -d "$out/modules" ]
    cp "$work/root"/boot/vmlinuz-* "$out/.vmlinuz"
    cp "$work/root"/boot/config-* "$out/config"
    mv "$out/.vmlinuz" "$out/vmlinuz"
fi
echo "$out/vmlinuz"
