#!/bin/busybox sh
# The first process of the guest that run.sh starts: makes file systems on the module, runs the tests, and switches the guest off.
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin:/usr/sbin:/sbin HOME=/ CI=true RUST_BACKTRACE=0
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm && mount -t tmpfs shm /dev/shm
exec </dev/null >/dev/ttyS0 2>&1
stty -F /dev/ttyS0 raw -echo
for module in /modules/*.ko; do insmod "$module"; done
for word in $(cat /proc/cmdline); do
    case $word in domain=* | how_much=* | tested=* | programs=*) eval "$word" ;; esac
done
lodefs=$(readlink /bin/lodefs)

# check NAME COMMAND...: of the place that is looked at.
check() {
    name=$1
    shift
    if "$@" >/tmp/log 2>&1; then
        echo "ok   $place: $name"
    else
        echo "FAIL $place: $name"
        tail -n 40 /tmp/log
        false
    fi
}

# The flag of a volume's files with the tools that everybody has, and what comes of it.
effect_is() { lodefs dax status "$1" | grep -q "$2"; }
flag() {
    cd /mnt/tests && mkdir directory &&
        lodefs mount --create 64M volume directory &&
        cd directory && touch file && effect_is file buffered &&
        exec 3<file && xfs_io -c 'chattr +x' file && lsattr file | cut -d' ' -f1 | grep -q x &&
        effect_is file pending && lodefs dax status file | grep -q "process $$ " &&
        exec 3<&- && effect_is file direct && chattr -x file && ! lsattr file | cut -d' ' -f1 | grep -q x && effect_is file buffered &&
        mkdir child && chattr +x child && touch child/file && effect_is child/file direct &&
        xfs_io -c 'chattr -x' child/file && effect_is child/file buffered &&
        cd / && lodefs umount /mnt/tests/directory && lodefs fsck /mnt/tests/volume
}

place='the module'
check 'as a device for file systems' ndctl create-namespace --force --reconfig=namespace0.0 --mode=fsdax --map=mem
for place in $(echo "$tested" | tr , ' '); do
    type=${place%:*}
    # So that large files begin at multiples of 2 MiB, which huge pages want.
    case $type in
    ext4) check mkfs mkfs.ext4 -Fq -b 4096 -E stride=512,stripe_width=512 /dev/pmem0 ;;
    xfs) check mkfs mkfs.xfs -fq -d su=2m,sw=1 /dev/pmem0 ;;
    esac
    check mount mount -t "$type" -o "dax=${place#*:}" /dev/pmem0 /mnt || continue
    mkdir /mnt/tests
    # For the tests, their domain is the one that is expected to be found.
    export TMPDIR=/mnt/tests LODEFS_TEST_ON_DAX="$domain"
    place="$place, $domain"
    for program in $(echo "$programs" | tr , ' '); do
        name=$(basename "${program%-*}")
        if [ "$how_much" = all ]; then
            check "$name" "$program" --test-threads=1
            grep '^test result' /tmp/log
        fi
        if [ "$name" = attach ]; then
            check 'the medium' "$program" --test-threads=1 --nocapture --ignored on_dax::
            grep '^on ' /tmp/log
        fi
    done
    check 'the flag, by xfs_io, lsattr and chattr' flag || {
        exec 3<&-
        cd /
        mountpoint -q /mnt/tests/directory && lodefs umount /mnt/tests/directory
    }
    check unmount umount /mnt
done
echo 'end of tests'
sync
poweroff -f
