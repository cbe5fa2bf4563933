#!/usr/bin/env bash
# Runs the tests of direct access where the kernel maps files directly: in QEMU, on a Debian kernel, with an emulated module of persistent
# memory, on ext4 and XFS. Takes a quarter of an hour.
#   tests/kernel-dax/run.sh [quick]
# 'quick' leaves out what does not differ from other machines. As root, on Debian; installs what it needs. $SUITE is the Debian suite that the kernel is
# from (6.7 or later, for PAGEMAP_SCAN), trixie by default; what was fetched is kept in the target directory. With KVM=yes the processor is that of the
# machine, which is faster, but not every machine can do that which is a guest itself.
# Closes with 'N passed, N failed'.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
how_much=${1:-all}
suite=${SUITE:-trixie}
[[ $suite =~ ^[a-z]+$ ]] || { echo "SUITE=$suite: not a name of a Debian suite" >&2; exit 2; }
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
kept=$target/kernel-dax/$suite
scratch=$(mktemp -d)
machine=
trap '[ -z "$machine" ] || kill "$machine"; rm -rf "$scratch"' EXIT
trap 'exit 1' INT TERM
PATH=$PATH:/usr/sbin:/sbin

packages=(qemu-system-x86 busybox-static cpio kmod ndctl xfsprogs e2fsprogs xz-utils zstd)
missing=()
for package in "${packages[@]}"; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

# fetch_kernel: the packages of the newest kernel for virtual machines, unpacked into $kept/root. Newer suites split it into several: what is built
# into the kernel (modules.builtin), without which modprobe finds no such module, is in linux-base-VERSION there.
fetch_kernel() {
    local from=(-o Dir::Etc::SourceList="$scratch/sources" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$scratch/lists" -o Dir::Cache="$scratch/cache")
    mkdir -p "$scratch/lists/partial" "$scratch/cache/archives/partial" "$scratch/packages"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $suite main" >"$scratch/sources"
    apt-get "${from[@]}" update -qq
    local names
    names=$(apt-cache "${from[@]}" depends --recurse --no-recommends --no-suggests --no-breaks --no-conflicts --no-replaces --no-enhances linux-image-cloud-amd64 |
        grep -E '^linux-(image|binary|modules|base)-[0-9]')
    # The download runs as another user.
    chmod -R a+rwX "$scratch"
    (cd "$scratch/packages" && apt-get "${from[@]}" download -qq $names)
    rm -rf "$kept"
    mkdir -p "$kept/root"
    for package in "$scratch"/packages/*.deb; do dpkg -x "$package" "$kept/root"; done
    # Where modules are looked for, whichever suite it is.
    [ -d "$kept/root/lib/modules" ] || ln -s usr/lib "$kept/root/lib"
    depmod -b "$kept/root" "$(ls "$kept/root/lib/modules")"
    touch "$kept/complete"
}

# add PROGRAM...: into the guest, where it is here, with its libraries.
add() {
    local program file
    for program in "$@"; do
        for file in "$program" $(ldd "$program" | grep -o '/[^ ]*'); do
            [ -e "$guest$file" ] || install -D "$file" "$guest$file"
        done
    done
}

# add_modules NAME...: those that the kernel has not built in, with what they need, in the order in which they are loaded.
add_modules() {
    local module number=100
    mkdir "$guest/modules"
    for module in "$@"; do modprobe -C /dev/null -d "$kept/root" -S "$version" --show-depends "$module"; done |
        sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' >"$scratch/modules"
    while read -r module; do
        number=$((number + 1))
        case $module in
        *.xz) xz -dc "$module" ;;
        *.zst) zstd -qdc "$module" ;;
        *) cat "$module" ;;
        esac >"$guest/modules/$number.ko"
    done <"$scratch/modules"
}

# boot DOMAIN FILE-SYSTEM...: the guest's tests, on a module that is durable from DOMAIN on.
boot() {
    local domain=$1 saves
    shift
    case $domain in
    cpu-cache) saves=cpu ;;
    memory-controller) saves=mem-ctrl ;;
    esac
    truncate -s 0 "$scratch/module" "$scratch/said"
    truncate -s 1G "$scratch/module"
    timeout --kill-after=5 1800 qemu-system-x86_64 "${processor[@]}" -smp 2 -m 3G,slots=2,maxmem=8G \
        -machine "q35,nvdimm=on,nvdimm-persistence=$saves" \
        -object "memory-backend-file,id=module,share=on,mem-path=$scratch/module,size=1G,align=2M" -device nvdimm,memdev=module \
        -kernel "$kernel" -initrd "$scratch/initrd" \
        -append "console=ttyS1 panic=-1 mitigations=off domain=$domain how_much=$how_much tested=$(IFS=,; echo "$*") programs=$programs" \
        -display none -vga none -net none -no-reboot -monitor none -serial "file:$scratch/said" -serial "file:$scratch/kernel" &
    machine=$!
    # Until it has ended, what it says is shown.
    tail --pid=$machine -n +1 -s 0.2 -f "$scratch/said" &
    wait "$machine" || true
    machine=
    wait
    if ! grep -q '^end of tests' "$scratch/said"; then
        echo "FAIL the guest has not come to its end; its kernel said:"
        tail -n 20 "$scratch/kernel"
    fi
    cat "$scratch/said" >>"$scratch/all"
    grep -q '^end of tests' "$scratch/said" || echo "FAIL" >>"$scratch/all"
}

[ -e "$kept/complete" ] || fetch_kernel
version=$(ls "$kept/root/lib/modules")
# In /boot, or beside the modules.
kernel=$(find "$kept/root" -type f -name 'vmlinuz*' | head -n 1)
[ -n "$kernel" ] || { echo "SUITE=$suite: its packages hold no kernel" >&2; exit 1; }
if [ "${KVM:-no}" = yes ]; then
    processor=(-accel kvm -cpu host)
else
    # Without cx16: the instruction sets wrong flags now and then in QEMU 7.2, and kernels fall over it.
    processor=(-accel tcg,thread=multi -cpu max,-cx16)
fi

cargo test --quiet -p lodefs-cli --test attach --test dax --no-run
programs=
for name in attach dax; do
    program=$(cargo test --quiet -p lodefs-cli --test $name --no-run --message-format=json | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | grep "/$name-" | tail -n 1)
    programs=$programs,$program
done
programs=${programs#,}
lodefs=$(realpath "$(dirname "$program")/../lodefs")

guest=$scratch/guest
mkdir -p "$guest"/{bin,dev,proc,sys,tmp,mnt,etc}
install "$(command -v busybox)" "$guest/bin/busybox"
install "$here/guest.sh" "$guest/init"
cp /etc/mke2fs.conf "$guest/etc/"
printf 'root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >"$guest/etc/passwd"
for program in ndctl mkfs.ext4 mkfs.xfs xfs_io lsattr chattr; do add "$(realpath "$(command -v $program)")"; done
ln -sf "$(realpath "$(command -v mkfs.ext4)")" "$guest/bin/mkfs.ext4"
ln -sf "$(realpath "$(command -v mkfs.xfs)")" "$guest/bin/mkfs.xfs"
for program in ${programs//,/ } "$lodefs"; do
    add "$program"
    strip -g "$guest$program"
done
ln -s "$lodefs" "$guest/bin/lodefs"
add_modules libnvdimm nfit nd_pmem ext4 xfs fuse loop
(cd "$guest" && find . | cpio --quiet -o -H newc) >"$scratch/initrd"

: >"$scratch/all"
echo "kernel $version"
boot memory-controller ext4:always xfs:inode
how_much=quick
boot cpu-cache ext4:inode xfs:always
passed=$(grep -c '^ok ' "$scratch/all" || true) failed=$(grep -c '^FAIL' "$scratch/all" || true)
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
