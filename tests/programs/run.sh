#!/usr/bin/env bash
# Programs as they are: each case on tmpfs, on a mount (buffered files), and under `lodefs run` (direct files). All three must say the same; what they have left
# in files on the volume must be the same after it was mounted again.
#
#   tests/programs/run.sh [quick] [CASE...]      as root, on Debian; CASE: the name of a file in cases/
#
# Installs the packages that it needs. LODEFS names the program, or it is built. Quick: without those that take longer (postgres, rocksdb, kills).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
slow=' kills postgres rocksdb '
quick=
if [ "${1-}" = quick ]; then
    quick=yes
    shift
fi

packages=(fio gcc git libc6-dev liblmdb-dev libpmem2-dev libpmemobj-dev lmdb-utils procps python3 redis-server rsync sqlite3)
[ -n "$quick" ] || packages+=(postgresql rocksdb-tools)
missing=()
for package in "${packages[@]}"; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    # No servers are to be started by their installation.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod 755 /usr/sbin/policy-rc.d
        policy=new
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    [ -z "${policy-}" ] || rm /usr/sbin/policy-rc.d
fi
if [ -z "${LODEFS-}" ]; then
    (cd "$here" && cargo build --quiet --release)
    LODEFS=$(cd "$here" && cargo metadata --format-version 1 --no-deps |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/lodefs
fi
LODEFS=$(realpath "$LODEFS")

work=$(mktemp -d --tmpdir=/dev/shm)
export LODEFS_FORCE_DOMAIN=memory-controller
clean() {
    "$LODEFS" umount "$work/mnt" 2>/dev/null || true
    rm -rf "$work"
}
trap clean EXIT
mkdir "$work/mnt" "$work/tmpfs" "$work/built"
# Users of services come here, too.
chmod 755 "$work"
export SOURCES=$here/../../crates BUILT=$work/built CASES=$here/cases
mount_volume() { "$LODEFS" mount "$@" -o dax=inode,allow_other,dev,suid "$work/volume" "$work/mnt"; }
mount_volume --create 4G
mkdir "$work/mnt/mount" "$work/mnt/run"
# The kernel maps no direct files: so there they are buffered.
"$LODEFS" dax off "$work/mnt/mount"
"$LODEFS" dax on "$work/mnt/run"
for source in "$here"/*.c; do
    name=$(basename "$source" .c)
    case $name in
    lmdb) libraries=-llmdb ;;
    *) libraries='-lpmem2 -lpmemobj' ;;
    esac
    # shellcheck disable=SC2086
    gcc -O2 -Wall -D_GNU_SOURCE -o "$BUILT/$name" "$source" $libraries
done

# What is in a directory: names, kinds, modes, owners, and the contents of files.
contents() {
    (
        cd "$1"
        find . -printf '%p %y %m %u %g %l\n' | sort
        find . -type f -print0 | sort -z | xargs -0 -r sha256sum
    )
}

cases=("$@")
if [ ${#cases[@]} -eq 0 ]; then
    for file in "$here"/cases/*.sh; do
        name=$(basename "$file" .sh)
        [ -n "$quick" ] && [[ $slow == *" $name "* ]] || cases+=("$name")
    done
fi
failed=0
for name in "${cases[@]}"; do
    verdict=ok
    took=
    for way in tmpfs mount run; do
        place=$work/mnt/$way
        [ $way = tmpfs ] && place=$work/tmpfs
        mkdir "$place/$name"
        command=(sh -eu "$here/cases/$name.sh")
        [ $way = run ] && command=("$LODEFS" run -- "${command[@]}")
        from=$(date +%s%N)
        (cd "$place/$name" && timeout --kill-after=5 600 "${command[@]}") >"$work/$way.said" 2>"$work/$way.errors" </dev/null ||
            { verdict="FAILED on $way (status $?)"; tail -n 5 "$work/$way.errors" "$work/$way.said"; break; }
        took+=" $way $((($(date +%s%N) - from) / 1000000)) ms"
        cmp -s "$work/tmpfs.said" "$work/$way.said" ||
            { verdict="DIFFERS on $way"; diff "$work/tmpfs.said" "$work/$way.said" | head -n 20 || true; break; }
    done
    printf '%-12s %s:%s\n' "$name" "$verdict" "$took"
    [ "$verdict" = ok ] || failed=$((failed + 1))
done

for way in mount run; do contents "$work/mnt/$way" >"$work/$way.before"; done
"$LODEFS" umount "$work/mnt"
"$LODEFS" fsck "$work/volume" >/dev/null || { echo 'FAILED: fsck'; failed=$((failed + 1)); }
mount_volume
for way in mount run; do
    contents "$work/mnt/$way" >"$work/$way.after"
    cmp "$work/$way.before" "$work/$way.after" || { echo "FAILED: $way, mounted again"; failed=$((failed + 1)); }
done
echo "${#cases[@]} cases, $(wc -l <"$work/run.after") lines about what the programs have left: $failed failed"
exit $((failed > 0))
