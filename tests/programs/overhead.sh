#!/usr/bin/env bash
# What does `lodefs run` cost a program that uses no volume? Processor time of the same work with it and without, in turns; medians, and their ratio.
#
#   tests/programs/overhead.sh LODEFS [ROUNDS]      a volume is mounted meanwhile, so that the library has something to look for
set -euo pipefail
lodefs=$(realpath "$1")
rounds=${2:-9}
work=$(mktemp -d --tmpdir=/dev/shm)
clean() {
    "$lodefs" umount "$work/mnt" 2>/dev/null || true
    rm -rf "$work"
}
trap clean EXIT
mkdir "$work/mnt" "$work/files"
LODEFS_FORCE_DOMAIN=memory-controller "$lodefs" mount --create 64M -o dax=always "$work/volume" "$work/mnt"
cd "$work/files"
seq 1 400000 | sort -R --random-source=<(yes) >lines

reads() { fio --name=r --filename=data --rw=randread --bs=4k --size=64m --io_size=8g --ioengine=psync --invalidate=0 --output=/dev/null; }
sorts() { for _ in 1 2 3 4 5; do sort lines | gzip -1 >/dev/null; done; }
calls() { dd if=/dev/zero of=/dev/null bs=1 count=8000000 status=none; }
starts() { for _ in $(seq 200); do /bin/true; done; }
export -f reads sorts calls starts

# Processor time of a function, in milliseconds, with these words before the command.
spent() {
    local TIMEFORMAT='%U %S'
    { time "${@:2}" bash -c "$1" >/dev/null 2>&1; } 2>&1 | awk '{ printf "%d\n", ($1 + $2) * 1000 }'
}
median() { sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

printf '%-8s %12s %12s %8s\n' work without with ratio
for work_name in reads calls sorts starts; do
    spent $work_name >/dev/null
    : >without; : >with
    for _ in $(seq "$rounds"); do
        spent $work_name >>without
        spent $work_name "$lodefs" run -- >>with
    done
    a=$(median <without) b=$(median <with)
    printf '%-8s %9d ms %9d ms %8.3f\n' $work_name "$a" "$b" "$(echo "$b / $a" | bc -l)"
done
