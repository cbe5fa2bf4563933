# An append-only file that is synced always, a rewrite of it, a kill, and everything again.
socket=/tmp/lodefs-redis.$$
start() {
    redis-server --port 0 --unixsocket "$socket" --appendonly yes --appendfsync always --save '' --dir . --daemonize no >server.log 2>&1 &
    server=$!
    until redis-cli -s "$socket" ping 2>/dev/null | grep -q PONG; do sleep 0.05; done
}
start
for number in $(seq 1 300); do echo "set key:$number value:$number"; done | redis-cli -s "$socket" | sort | uniq -c | sed 's/^ *//'
redis-cli -s "$socket" bgrewriteaof >/dev/null
sleep 0.3
redis-cli -s "$socket" incrby counter 41
kill -9 $server
wait $server || true
start
redis-cli -s "$socket" incr counter
redis-cli -s "$socket" dbsize
redis-cli -s "$socket" get key:177
redis-cli -s "$socket" shutdown nosave || true
wait
rm -f server.log
