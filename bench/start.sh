#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# What starting a machine costs: bench/start.sh [--engine E] [--program TRIVISOR] [--runs N] [--qemu QEMU]
#
# Prints the CPU time of all of its processes until the guest's first instruction has written to the serial port
# (least of N runs), and what memory they then have beyond the guest's, without and with one disk and one network; with
# --qemu also of that QEMU (TCG, or KVM for engine kvm), in turns. A shell script, because it also runs inside the nested tests' machine, which has BusyBox and no more.
set -eu

engine=bt program=${TRIVISOR:-build/trivisor} runs=5 qemu=
while [ $# -gt 1 ]; do
    case $1 in
    --engine) engine=$2 ;;
    --program) program=$2 ;;
    --runs) runs=$2 ;;
    --qemu) qemu=$2 ;;
    *) break ;;
    esac
    shift 2
done
[ $# -eq 0 ] || { echo "usage: $0 [--engine E] [--program TRIVISOR] [--runs N] [--qemu QEMU]" >&2; exit 2; }

dir=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill $pid 2>/dev/null || :; rm -rf "$dir"' EXIT

# The guest: a Multiboot header with addresses, mov $0x3f8, %dx; mov $'!', %al; out %al, %dx; 1: hlt; jmp 1b
printf '\002\260\255\033\000\000\001\000\376\117\121\344\000\000\020\000\000\000\020\000\000\000\000\000\000\000\000\000\040\000\020\000' > "$dir/guest"
printf '\146\272\370\003\260\041\356\364\353\375' >> "$dir/guest"
dd if=/dev/zero of="$dir/disk" bs=1M count=4 2>/dev/null

# The processes of the machine: $1 and its descendants.
tree() {
    echo "$1"
    for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do tree "$child"; done
}

# Starts a machine by the command "$@", waits for the guest's byte and leaves "CPU-MICROSECONDS PROCESSES RSS PSS" of all
# its processes in $dir/result, memory in KiB and without the guest's.
one() {
    : > "$dir/out"
    "$@" </dev/null 2>"$dir/err" &
    pid=$!
    n=0
    until [ -s "$dir/out" ]; do
        kill -0 $pid 2>/dev/null || { cat "$dir/err" >&2; exit 1; }
        n=$((n + 1))
        [ $n -lt 600 ] || { echo "the guest does not start" >&2; exit 1; }
        sleep 0.1
    done
    sleep 0.1
    cpu=0 count=0 rss=0 pss=0
    for p in $(tree $pid); do
        for t in /proc/"$p"/task/*; do
            read -r ns _ < "$t/schedstat" && cpu=$((cpu + ns / 1000))
        done
        count=$((count + 1))
        # Guest memory has a name where the kernel shows it; else it is the anonymous mapping of 96 MiB, which may
        # be joined with a small one beside it.
        set -- $(awk '/^[0-9a-f]+-[0-9a-f]+ / { anon = NF == 5; guest = $0 ~ /trivisor-ram/ }
            $1 == "Size:" { guest = guest || (anon && $2 >= 98304 && $2 < 131072) }
            !guest && $1 == "Rss:" { rss += $2 }
            !guest && $1 == "Pss:" { pss += $2 }
            END { print rss, pss }' /proc/"$p"/smaps)
        rss=$((rss + $1)) pss=$((pss + $2))
    done
    kill $pid
    wait $pid 2>/dev/null || :
    pid=
    echo "$cpu $count $rss $pss" > "$dir/result"
}

ours() {
    one "$program" run --engine "$engine" -m 96 -k "$dir/guest" --serial "file:$dir/out" -q "$@"
}

accel='tcg -cpu max,-erms,-fsrm'
[ "$engine" != kvm ] || accel='kvm -cpu host'

peer() {
    # shellcheck disable=SC2086 # words
    one "$qemu" -accel $accel -M q35 -nodefaults -display none -m 96 -kernel "$dir/guest" -serial "file:$dir/out" "$@"
}

# Takes $dir/result for the least of $1 if it is.
keep() {
    read -r cpu rest < "$dir/result"
    if ! read -r least _ 2>/dev/null < "$dir/least-$1" || [ "$cpu" -lt "$least" ]; then
        echo "$cpu $rest" > "$dir/least-$1"
    fi
}

tell() {
    read -r cpu count rss pss < "$dir/least-$1"
    echo "$2, ${with:-no disk, no network}: $cpu us of CPU time to the first instruction, $count process(es)," \
        "$rss KiB of RSS beyond guest memory, PSS $pss KiB"
}

for with in "" "one disk, one network"; do
    rm -f "$dir"/least-*
    for _ in $(seq "$runs"); do
        if [ -z "$with" ]; then ours; else ours -d "$dir/disk,format=raw" -n user; fi
        keep ours
        [ -n "$qemu" ] || continue
        if [ -z "$with" ]; then peer; else
            peer -drive "file=$dir/disk,format=raw,if=virtio" -nic user,model=virtio-net-pci
        fi
        keep peer
    done
    tell ours "$engine"
    [ -z "$qemu" ] || tell peer QEMU
done
