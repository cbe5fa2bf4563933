# A cluster is made, loaded, used by two clients, stopped, started, checked.
bin=$(echo /usr/lib/postgresql/*/bin)
as() { runuser -u postgres -- "$@"; }
mkdir base sockets
chown postgres base sockets
cd base
as "$bin/initdb" -D data -A trust --no-locale -E UTF8 >/dev/null
start() { as "$bin/pg_ctl" -D data -w -t 60 -l data/log -o "-c listen_addresses= -c unix_socket_directories=$PWD/../sockets" start >/dev/null; }
start
client() { "$bin/$@" -h "$PWD/../sockets" -U postgres; }
export PGHOST="$PWD/../sockets" PGUSER=postgres
"$bin/createdb" bench
"$bin/pgbench" -i -q -s 1 bench 2>/dev/null >/dev/null
"$bin/pgbench" -c 2 -t 200 bench 2>/dev/null | grep 'actually processed'
"$bin/psql" -At bench -c 'select count(*), sum(delta) = (select sum(abalance) from pgbench_accounts) from pgbench_history'
as "$bin/pg_ctl" -D data -m immediate stop >/dev/null
start
"$bin/psql" -At bench -c 'select count(*), sum(delta) = (select sum(abalance) from pgbench_accounts) from pgbench_history'
"$bin/psql" -At bench -c 'checkpoint; vacuum full analyze' | tail -n 1
as "$bin/pg_ctl" -D data -m fast stop >/dev/null
as "$bin/pg_controldata" -D data | grep 'cluster state'
cd ..
rm -rf sockets
