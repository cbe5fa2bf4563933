#!/usr/bin/env bash
# Runs programs that nobody here wrote on a mounted volume: the quick part for CI.
#   tests/outside.sh LODEFS [fsx operations for each kind of volume]
# As root. Needs the programs fsx and pjdfstest (crates) in $CARGO_BIN or PATH, and sqlite3, fio, git, acl, attr, xfs_io (Debian).
# Closes with 'N passed, N failed'.
set -u
lodefs=$(realpath -e "$1") || exit 2
fsx_operations=${2:-20000}
here=$(cd "$(dirname "$0")" && pwd)
PATH=${CARGO_BIN:-$HOME/.cargo/bin}:$PATH
scratch=$(mktemp -d)
chmod 755 "$scratch" # pjdfstest works as other users, too
passed=0 failed=0

cleanup() {
    for mount in "$scratch"/*/mnt; do
        mountpoint -q "$mount" && "$lodefs" umount "$mount"
    done
    mountpoint -q "$scratch/memory" && umount "$scratch/memory"
    rm -rf "$scratch"
}
trap cleanup EXIT

check() { # check NAME COMMAND...
    local name=$1 log="$scratch/log"
    shift
    if "$@" >"$log" 2>&1 </dev/null; then
        passed=$((passed + 1))
        echo "ok   $name"
    else
        failed=$((failed + 1))
        echo "FAIL $name"
        tail -n 20 "$log"
    fi
}

# mount_volume KIND: a volume of this kind, mounted on $scratch/KIND/mnt
mount_volume() {
    local kind=$1 where="$scratch/$1" forced=
    [ "$kind" = page ] || where="$scratch/memory/$kind"
    [ "$kind" = memory-controller ] && forced=$kind
    mkdir -p "$where" "$scratch/$kind"
    LODEFS_FORCE_DOMAIN=$forced "$lodefs" mount --create 512M "$where/volume" "$scratch/$kind/mnt"
}

close_volume() {
    local kind=$1 where="$scratch/$1"
    [ "$kind" = page ] || where="$scratch/memory/$kind"
    "$lodefs" umount "$scratch/$kind/mnt" && "$lodefs" fsck "$where/volume"
}

# fsx_runs FILE [COMMAND...]: by that command. fsx slows down with the length of a run, so no run is longer than 20000 operations.
fsx_runs() {
    local file=$1 left=$fsx_operations seed=0
    shift
    while [ "$left" -gt 0 ]; do
        seed=$((seed + 1))
        "$@" fsx -q -f "$here/fsx.toml" -S $seed -N $((left < 20000 ? left : 20000)) "$file" || return
        left=$((left - 20000))
    done
}

sqlite_inserts() {
    sqlite3 "$1/db" "pragma journal_mode=$2; create table t(a integer primary key, b text);
        with recursive k(i) as (select 1 union all select i+1 from k where i<20000) insert into t select i, hex(i) from k;
        pragma integrity_check;" | grep -qx ok && rm "$1/db"
}

git_repository() {
    git -c init.defaultBranch=main init -q "$1/repository" && cp -r "$here/../crates" "$1/repository" &&
        git -C "$1/repository" add . && git -C "$1/repository" -c user.name=t -c user.email=t@t commit -qm t &&
        git clone -q "$1/repository" "$1/clone" && git -C "$1/clone" gc -q && git -C "$1/clone" fsck --strict &&
        diff -r "$here/../crates" "$1/clone/crates"
}

# says FILE WORDS: what 'lodefs dax status' says of the file.
says() { "$lodefs" dax status "$1" | grep -q "$2"; }
has_x() { lsattr "$1" | cut -d' ' -f1 | grep -q x; }

# Set, listed, pending, inherited, cleared; and what comes of it.
dax_flag() {
    local file="$1/dax/file" child="$1/dax/directory/child"
    mkdir -p "$1/dax/directory" && touch "$file" && says "$file" 'buffered, flag not set' && exec 3<"$file" &&
        xfs_io -c 'chattr +x' "$file" && has_x "$file" && says "$file" "pending until it is let go of by process $$ " && exec 3<&- &&
        says "$file" 'direct, flag set' && chattr -x "$file" && ! has_x "$file" && says "$file" 'buffered, flag not set' &&
        chattr +x "$1/dax/directory" && touch "$child" && has_x "$child" && says "$child" 'direct, flag set' &&
        xfs_io -c 'chattr -x' "$child" && ! has_x "$child" && says "$child" 'buffered, flag not set'
}

acls() {
    mkdir "$1/acl" && setfacl -d -m u:nobody:rwx "$1/acl" && touch "$1/acl/child" &&
        getfacl -c "$1/acl/child" | grep -q '^user:nobody:rwx' && chmod 600 "$1/acl/child" &&
        ! setpriv --reuid nobody --clear-groups cat "$1/acl/child"
}

fio_verify() {
    fio --name=v --directory="$1" --rw=randrw --bs=4k --size=16m --verify=crc32c --verify_fatal=1 --ioengine="$2" --verify_state_save=0 --fsync=32 --randseed=1
}

mkdir "$scratch/memory"
mount -t tmpfs -o huge=always,size=2G tmpfs "$scratch/memory" || exit 2
for kind in page volatile memory-controller; do
    mount_volume $kind || exit 2
    mnt="$scratch/$kind/mnt"
    check "$kind: fsx" fsx_runs "$mnt/fsx"
    check "$kind: sqlite, rollback journal" sqlite_inserts "$mnt" delete
    check "$kind: sqlite, write-ahead log" sqlite_inserts "$mnt" wal
    check "$kind: fio, read and write" fio_verify "$mnt" psync
    check "$kind: fio, mapped" fio_verify "$mnt" mmap
    if [ $kind = memory-controller ]; then
        mkdir -m 777 "$mnt/posix"
        check "$kind: pjdfstest" pjdfstest -c "$here/pjdfstest.toml" -p "$mnt/posix" -s /dev/shm
        check "$kind: git" git_repository "$mnt"
        check "$kind: DAX flag" dax_flag "$mnt"
        check "$kind: ACLs" acls "$mnt"
        mkdir -m 777 "$mnt/d" && "$lodefs" dax on "$mnt/d"
        check "$kind: fsx, lodefs run" fsx_runs "$mnt/d/fsx" "$lodefs" run --
        mkdir -m 777 "$mnt/d/p"
        check "$kind: pjdfstest, lodefs run" "$lodefs" run -- pjdfstest -c "$here/pjdfstest.toml" -p "$mnt/d/p" -s /dev/shm
    fi
    check "$kind: unmount and fsck" close_volume $kind
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
