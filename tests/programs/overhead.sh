#!/usr/bin/env bash
# What does `lodefs run` cost a program that uses no volume? Processor time of the same work without it, with it, and without it once more: the last is
# what chance does. In turns, whoever was first last time being last; means, and ratios of means with their standard errors.
#
#   tests/programs/overhead.sh LODEFS [ROUNDS]      a volume is mounted meanwhile, so that the library has something to look for
set -euo pipefail
lodefs=$(realpath "$1")
rounds=${2:-40}
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

reads() { fio --name=r --filename=data --rw=randread --bs=4k --size=64m --io_size=2g --ioengine=psync --invalidate=0 --output=/dev/null; }
sorts() { for _ in 1 2 3 4 5; do sort lines | gzip -1 >/dev/null; done; }
calls() { dd if=/dev/zero of=/dev/null bs=1 count=2000000 status=none; }
starts() { for _ in $(seq 100); do /bin/true; done; }
export -f reads sorts calls starts

# Processor time of a function, in milliseconds, with these words before the command.
spent() {
    local TIMEFORMAT='%U %S'
    { time "${@:2}" bash -c "$1" >/dev/null 2>&1; } 2>&1 | awk '{ printf "%d\n", ($1 + $2) * 1000 }'
}
# Of lines of times without, with, and without once more: means, and the ratios of the latter two to the first, with their standard errors.
summary() {
    awk '{
        for (i = 1; i <= 3; i++) { sum[i] += $i; squares[i] += $i * $i }
    }
    function spread(i) { return (squares[i] / NR - mean[i] ^ 2) / (NR - 1) / mean[i] ^ 2 }
    END {
        for (i = 1; i <= 3; i++) mean[i] = sum[i] / NR
        for (i = 2; i <= 3; i++) { ratio[i] = mean[i] / mean[1]; error[i] = ratio[i] * sqrt(spread(i) + spread(1)) }
        printf "%9.0f ms %9.0f ms   %.4f +- %.4f   %.4f +- %.4f\n", mean[1], mean[2], ratio[2], error[2], ratio[3], error[3]
    }'
}

printf '%-8s %12s %12s   %-16s   %s\n' work without with 'with / without' 'without once more'
for work_name in reads calls sorts starts; do
    spent $work_name >/dev/null
    for round in $(seq "$rounds"); do
        for turn in $((round % 3)) $(((round + 1) % 3)) $(((round + 2) % 3)); do
            run=()
            [ "$turn" = 1 ] && run=("$lodefs" run --)
            spent $work_name "${run[@]}" >"took$turn"
        done
        echo "$(<took0) $(<took1) $(<took2)"
    done >took
    printf '%-8s %s\n' $work_name "$(summary <took)"
done
