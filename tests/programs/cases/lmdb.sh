# LMDB, through its mapping, and with a writable one; its own tools see the same.
"$BUILT/lmdb" plain
"$BUILT/lmdb" writemap
mdb_stat plain | grep Entries
mdb_dump plain | sha256sum
mdb_dump writemap | sed 1,20d | sha256sum
mdb_copy plain copied 2>/dev/null || { mkdir copied; mdb_copy plain copied; }
mdb_dump copied | sha256sum
