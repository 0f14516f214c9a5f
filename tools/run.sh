#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# make run: from a fresh checkout to a shell in a guest. Arguments before -- go to trivisor, those after
# it to the guest kernel's command line.
set -eu
cd "$(dirname "$0")/.."

trivisor_args=
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    trivisor_args="$trivisor_args $1"
    shift
done
[ $# -eq 0 ] || shift

tools/deps.sh build
if [ ! -e build/build.ninja ]; then
    log=$(mktemp)
    meson setup build >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
    rm "$log"
fi
ninja -C build trivisor tools/initramfs.img
kernel=$(tools/fetch-kernel.sh)
# shellcheck disable=SC2086
exec build/trivisor run $trivisor_args -k "$kernel" -i build/tools/initramfs.img \
    -a "console=ttyS0 panic=-1 $*"
