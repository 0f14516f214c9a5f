#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# In the outer machine: saves a machine that checks itself again and again, and restores it under the other engine.
# Prints its output. Argument: how often.
changes=$1 done=0 engine=kvm
export XDG_RUNTIME_DIR=/tmp/change
mkdir -p $XDG_RUNTIME_DIR
cd $XDG_RUNTIME_DIR || exit 1

# Until the guest has printed $1 lines; 60 s.
lines() {
    n=0
    until [ "$(grep -c '^carry' out)" -ge "$1" ]; do
        n=$((n + 1))
        [ $n -le 300 ] && kill -0 $machine 2>/dev/null || return 1
        sleep 0.2
    done
}

dd if=/dev/zero of=disk bs=1M count=8 2>/dev/null
trivisor run --engine kvm --cpu common,-xsave -m 128 -c 2 -q --name box -k /bin/vmlinuz -i /bin/carry.img -d disk \
    -a 'console=ttyS0 quiet panic=-1 run="carry /dev/vda 86400"' </dev/null >out 2>err &
machine=$!
lines 3
while [ $done -lt "$changes" ]; do
    [ $engine = kvm ] && engine=bt || engine=kvm
    timeout 90 trivisor snapshot box box.vm --stop 2>save || break
    wait $machine || break
    trivisor restore box.vm --engine $engine -q --name box </dev/null >>out 2>err &
    machine=$!
    lines $(($(grep -c '^carry' out) + 3)) || break
    done=$((done + 1))
    [ $((done % 10)) -ne 0 ] || echo "@changed $done so far"
done
# A machine that hangs: what of it.
[ $done -eq "$changes" ] || {
    echo "@hangs under $engine after $done changes"
    trivisor ps; trivisor stats box
}
kill $machine
wait $machine
echo "@changed $done times"
cat save err out
