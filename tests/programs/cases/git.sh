# A repository: commits, a clone, collected garbage, a check of everything.
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_AUTHOR_DATE='2020-01-01T00:00:00Z'
export GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'
git init -q -b main origin
cp -a "$SOURCES" origin/crates
cd origin
git add -A
git commit -q -m first
find crates -name '*.rs' -exec sed -i '1i// changed' {} +
git commit -q -a -m second
git checkout -q -b side HEAD~1
git rm -q -r crates/core
git commit -q -m third
git checkout -q main
git rev-parse main side
git gc -q --aggressive
cd ..
git clone -q --no-local origin clone
cd clone
git fsck --strict
git merge -q -m merged origin/side 2>/dev/null || git checkout -q -f main
git status --porcelain | head -n 3
git log --oneline origin/main | cat
git stash list
git archive origin/main | tar -t | wc -l
