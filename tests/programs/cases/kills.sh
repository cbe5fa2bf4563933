# A pool whose program is killed in its transactions and in its recovery, a thousand times.
"$BUILT/pool" make objects
"$BUILT/pool" kills objects "${KILLS:-1000}"
