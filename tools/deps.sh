#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Installs the Debian packages that building, running and testing trivisor need, if any is missing.
# Asks nothing; does nothing at all when everything is there. `--list` prints the packages.
set -eu

# compiler and build:     gcc meson ninja-build pkg-config git iasl (acpica-tools)
# libraries:              Zydis (decoder), libseccomp (the sandbox's system call filter), ext2fs (kernels
#                         out of a guest's disk), libfuse (the protocol of shared directories), zlib and zstd
#                         (compressed clusters of qcow2), libarchive (the disk of --cloud-init),
#                         libslirp (user-mode networks), libc headers
# guest images:           busybox-static (initramfs); the kernel is downloaded, not installed;
#                         mmdebstrap, fakeroot, e2fsprogs, fdisk, ssh-keygen (make image), uidmap (the same
#                         without root)
# tests:                  clang (second compiler, fuzzing, sanitizers), clang-format, cmocka, pytest, pexpect,
#                         gdb (the gdb stub),
#                         zsh, fish (their completion scripts)
# tests, bench:           qemu-utils (qemu-img and qemu-io judge the disk images)
# bench:                  qemu-system-x86 (the program measured against; also runs the test guests)
PACKAGES="gcc libc6-dev binutils make meson ninja-build pkg-config git python3 ca-certificates
    libzydis-dev libseccomp-dev libext2fs-dev libfuse3-dev zlib1g-dev libzstd-dev libarchive-dev libslirp-dev acpica-tools
    busybox-static
    mmdebstrap fakeroot uidmap e2fsprogs fdisk openssh-client
    clang clang-format libclang-rt-14-dev libcmocka-dev python3-pytest python3-pexpect gdb mandoc zsh fish
    qemu-system-x86 qemu-utils"

if [ "${1:-}" = --list ]; then
    echo $PACKAGES
    exit 0
fi

missing=
for p in $PACKAGES; do
    state=$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "deps: missing packages, and neither root nor sudo to install them:$missing" >&2
        exit 1
    fi
    as_root="sudo env"
fi
echo "deps: installing:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt_install() {
    # shellcheck disable=SC2086
    $as_root ${as_root:+DEBIAN_FRONTEND=noninteractive} apt-get install -y -qq \
        --no-install-recommends -o Dpkg::Use-Pty=0 $missing </dev/null >"$log" 2>&1
}
# A bare machine has no package lists, an old one has stale ones: refresh only when needed.
apt_install || {
    $as_root apt-get update -qq </dev/null >&2
    apt_install || { cat "$log" >&2; echo "deps: could not install:$missing" >&2; exit 1; }
}
