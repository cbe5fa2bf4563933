# Data that is verified, by each way that the kernel has.
for engine in psync mmap libaio io_uring; do
    fio --name=v --filename="$engine" --rw=randrw --bs=4k --size=16m --verify=crc32c --verify_fatal=1 --ioengine="$engine" --iodepth=4 \
        --fsync=32 --randseed=1 --output=/dev/null
    echo "$engine: $?"
done
fio --name=v --filename=threads --rw=randwrite --bs=3k --size=8m --verify=sha256 --ioengine=psync --numjobs=2 --thread --offset_increment=8m \
    --randseed=1 --output=/dev/null
echo "threads: $?"
