# Every journal mode, with a mapping and without, from two processes; and a write-ahead log that stays.
for mode in delete truncate persist memory wal off; do
    for mapped in 0 8000000; do
        base=$mode-$mapped.db
        sqlite3 "$base" "pragma journal_mode=$mode; pragma mmap_size=$mapped;
            create table t (a integer primary key, b blob); create index i on t (b);" >/dev/null
        for writer in 1 2; do
            sqlite3 -cmd '.timeout 60000' "$base" "pragma journal_mode=$mode; pragma mmap_size=$mapped; pragma synchronous=full;
                with recursive n(x) as (select 1 union all select x + 1 from n where x < 300)
                insert into t (b) select printf('%d of $writer: %.200c', x, 'x') from n;
                begin; delete from t where a % 7 = $writer; rollback;
                update t set b = b || 'changed' where b like '%5 of $writer:%';" >/dev/null &
        done
        wait
        sqlite3 "$base" "pragma mmap_size=$mapped; pragma integrity_check; select count(*), sum(length(b)) from t;" | tail -n 2
        sqlite3 "$base" 'vacuum; pragma integrity_check;'
        sqlite3 "$base" 'select b from t order by b' | sha256sum
    done
done
# A reader keeps the log, and sees what it saw.
sqlite3 held.db 'pragma journal_mode=wal; create table t (a); insert into t values (1);'
{ echo 'begin; select count(*) from t;'; sleep 1; echo 'select count(*) from t; commit; select count(*) from t;'; } | sqlite3 held.db &
sleep 0.5
sqlite3 held.db 'insert into t values (2);'
wait
