#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Installs the Debian packages that building, running and testing trivisor need, if any is missing.
# Asks nothing; does nothing at all when everything is there. Arguments: groups of packages, build, image
# or test; all without. `--list` before them prints the packages.
set -eu

# compiler and build:     gcc meson ninja-build pkg-config git iasl (acpica-tools)
# libraries:              Zydis (decoder), libseccomp (the sandbox's system call filter), ext2fs (kernels
#                         out of a guest's disk), libfuse (the protocol of shared directories), zlib and zstd
#                         (compressed clusters of qcow2), libarchive (the disk of --cloud-init),
#                         libslirp (user-mode networks), jansson (JSON of the control socket), xxHash (checksums
#                         of saved machines), libc headers; cmocka, since meson asks for it once
# the first guest:        busybox-static (initramfs); the kernel is downloaded, not installed
build="gcc libc6-dev binutils make meson ninja-build pkg-config git python3 ca-certificates
    libzydis-dev libseccomp-dev libext2fs-dev libfuse3-dev zlib1g-dev libzstd-dev libxxhash-dev libarchive-dev libslirp-dev libjansson-dev acpica-tools
    libcmocka-dev
    busybox-static"

# make image:             mmdebstrap, fakeroot, e2fsprogs, fdisk, ssh-keygen; uidmap (the same without root)
image="mmdebstrap fakeroot uidmap e2fsprogs fdisk openssh-client"

# tests:                  clang (second compiler, fuzzing, sanitizers), clang-format, pytest (xdist: two tests at a time), pexpect,
#                         gdb (the gdb stub), mandoc,
#                         zsh, fish (their completion scripts)
# tests, bench:           qemu-utils (qemu-img and qemu-io judge the disk images)
# bench:                  qemu-system-x86 (the program measured against; also runs the test guests),
#                         fio (bench/disk.py copies it with its libraries into a guest)
test="clang clang-format libclang-rt-14-dev python3-pytest python3-pytest-xdist python3-pexpect gdb mandoc zsh fish
    qemu-system-x86 qemu-utils fio"

list=no
[ "${1:-}" != --list ] || { list=yes; shift; }
PACKAGES=
for group in "${@:-all}"; do
    case $group in
    build) PACKAGES="$PACKAGES $build" ;;
    image) PACKAGES="$PACKAGES $image" ;;
    test) PACKAGES="$PACKAGES $test" ;;
    all) PACKAGES="$build $image $test" ;;
    *) echo "deps: there are build, image and test, no '$group'" >&2; exit 1 ;;
    esac
done
if [ $list = yes ]; then
    # shellcheck disable=SC2086
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
