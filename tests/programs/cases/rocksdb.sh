# RocksDB, with calls and with mappings for reading and for writing.
for maps in false true; do
    db_bench --db="base-$maps" --benchmarks=fillrandom,overwrite,compact,readrandom,verifychecksum --num=20000 --value_size=100 \
        --mmap_read=$maps --mmap_write=$maps --sync=false --seed=1 --threads=1 2>/dev/null | grep -c micros/op
    ldb --db="base-$maps" scan 2>/dev/null | sha256sum
done
