# cp, mv, tar, rsync, find, sed, rm on a tree of sources.
cp -a "$SOURCES" tree
mv tree/core moved
mv moved tree/core
diff -r "$SOURCES" tree
tar -cf tree.tar tree
mkdir out
tar -xf tree.tar -C out
diff -r tree out/tree
rsync -a --checksum out/tree/ synced
rsync -a --delete --inplace "$SOURCES/" synced
diff -r tree synced
find tree -name '*.rs' -size +1k | LC_ALL=C sort | sha256sum
find out -name '*.rs' -exec sed -i 's/unsafe/UNSAFE/g' {} +
grep -rho UNSAFE out | wc -l
cat $(find tree -name '*.rs' | LC_ALL=C sort) | wc -c
dd if=/dev/zero of=sparse bs=1 count=1 seek=10M 2>/dev/null
cp --sparse=always sparse sparser
cmp sparse sparser
truncate -s 5M sparse
split -b 1M sparse part.
cat part.* | cmp - sparse
ln sparse linked
ln -s sparse symbolic
stat -c '%h %s' linked
readlink symbolic
install -m 640 sparse installed
stat -c %a installed
rm -r out synced
du --apparent-size -b tree/layout/src | tail -n 1 | cut -f 1 >/dev/null
