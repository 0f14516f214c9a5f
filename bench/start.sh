#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# What starting a machine costs: bench/start.sh [--engine E] [--program TRIVISOR] [--runs N]
#
# Prints the CPU time of all of its processes until the guest's first instruction has written to the serial port
# (least of N runs), and what memory they then have beyond the guest's, without and with one disk and one network. A
# shell script, because it also runs inside the nested tests' machine, which has BusyBox and no more.
set -eu

engine=bt program=${TRIVISOR:-build/trivisor} runs=5
while [ $# -gt 1 ]; do
    case $1 in
    --engine) engine=$2 ;;
    --program) program=$2 ;;
    --runs) runs=$2 ;;
    *) break ;;
    esac
    shift 2
done
[ $# -eq 0 ] || { echo "usage: $0 [--engine E] [--program TRIVISOR] [--runs N]" >&2; exit 2; }

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

# Starts a machine with options "$@", waits for the guest's byte and leaves "CPU-MICROSECONDS PROCESSES RSS PSS" of all
# its processes in $dir/result, memory in KiB and without the guest's.
one() {
    : > "$dir/out"
    "$program" run --engine "$engine" -m 96 -k "$dir/guest" --serial "file:$dir/out" -q "$@" </dev/null 2>"$dir/err" &
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

for with in "" "one disk, one network"; do
    least=
    for _ in $(seq "$runs"); do
        if [ -z "$with" ]; then one; else one -d "$dir/disk,format=raw" -n user; fi
        read -r cpu count rss pss < "$dir/result"
        [ -n "$least" ] && [ "$least" -le "$cpu" ] || least=$cpu
    done
    echo "$engine, ${with:-no disk, no network}: $least us of CPU time to the first instruction, $count process(es)," \
        "$rss KiB of RSS beyond guest memory, PSS $pss KiB"
done
