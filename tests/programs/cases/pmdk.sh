# A pool of objects: transactions, an abort, a check; and what libpmem2 takes the file for.
"$BUILT/pool" make objects
"$BUILT/pool" work objects 500
"$BUILT/pool" check objects 500
"$BUILT/pool" granularity mapped
