# Pipelines, redirections, appends by many processes, a file that is both input and output.
seq 1 20000 >numbers
sh -c 'cat numbers | tee copy' | tail -n 1
cmp numbers copy
sort -r numbers >reversed
sort -n reversed | cmp - numbers
{ echo first; cat <numbers; echo last; } >group
wc -l <group
exec 5<>both
echo 'one two' >&5
echo three >&5
exec 5<&-
cat both
: >log
for writer in 1 2 3 4; do
    (for line in $(seq 1 500); do echo "writer $writer line $line" >>log; done) &
done
wait
wc -l <log
sort -u log | wc -l
grep -c '^writer [1-4] line [0-9]*$' log
(
    exec >>log
    sh -c 'echo a child'
    echo a parent
)
tail -n 2 log
while read -r line; do echo "<$line>"; done <both
cat >document <<'END'
$not expanded
END
cat document
head -c 100000 numbers | tail -c 10
echo; awk '{ sum += $1 } END { print sum > "sum" }' numbers
cat sum
(sleep 0.1; echo late >>both) & wait
tail -n 1 both
mkfifo pipe
cat pipe >piped & cat numbers >pipe; wait
cmp numbers piped
