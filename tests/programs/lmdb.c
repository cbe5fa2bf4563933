// An environment of LMDB: transactions that commit and that abort, a growing map, readers beside a writer.
//   lmdb DIRECTORY      with MDB_WRITEMAP if the name begins with w
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MUST(call) do { int errno_ = (call); if (errno_) { fprintf(stderr, "%s: %s\n", #call, mdb_strerror(errno_)); exit(1); } } while (0)

static MDB_env *open_environment(const char *directory, unsigned flags, size_t size) {
    MDB_env *environment;
    MUST(mdb_env_create(&environment));
    MUST(mdb_env_set_mapsize(environment, size));
    MUST(mdb_env_open(environment, directory, flags, 0644));
    return environment;
}

static void put(MDB_env *environment, int from, int to, int commits) {
    MDB_txn *transaction;
    MDB_dbi base;
    MUST(mdb_txn_begin(environment, NULL, 0, &transaction));
    MUST(mdb_dbi_open(transaction, NULL, 0, &base));
    for (int number = from; number < to; number++) {
        char key[16], value[300];
        snprintf(key, sizeof key, "%08d", number);
        memset(value, 'a' + number % 26, sizeof value);
        MDB_val k = {8, key}, v = {sizeof value, value};
        MUST(mdb_put(transaction, base, &k, &v, 0));
    }
    if (commits) MUST(mdb_txn_commit(transaction)); else mdb_txn_abort(transaction);
}

static size_t count(MDB_env *environment) {
    MDB_txn *transaction;
    MDB_dbi base;
    MDB_stat stat;
    MUST(mdb_txn_begin(environment, NULL, MDB_RDONLY, &transaction));
    MUST(mdb_dbi_open(transaction, NULL, 0, &base));
    MUST(mdb_stat(transaction, base, &stat));
    mdb_txn_abort(transaction);
    return stat.ms_entries;
}

int main(int argc, char **arguments) {
    if (argc != 2) return 2;
    const char *directory = arguments[1];
    unsigned flags = directory[0] == 'w' ? MDB_WRITEMAP : 0;
    mkdir(directory, 0755);
    MDB_env *environment = open_environment(directory, flags, 16 << 20);
    for (int round = 0; round < 50; round++) put(environment, round * 100, round * 100 + 100, round % 5 != 4);
    printf("%zu entries\n", count(environment));
    MUST(mdb_env_set_mapsize(environment, 64 << 20));
    for (int round = 0; round < 50; round++) put(environment, 10000 + round * 500, 10000 + round * 500 + 500, 1);
    printf("%zu entries\n", count(environment));
    mdb_env_close(environment);
    // A reader in another process, while this one writes.
    fflush(stdout);
    pid_t reader = fork();
    environment = open_environment(directory, flags, 64 << 20);
    for (int round = 0; round < 20; round++) {
        if (reader == 0) { if (count(environment) < 29000) _exit(1); } else put(environment, 50000 + round, 50001 + round, 1);
    }
    mdb_env_close(environment);
    if (reader == 0) _exit(0);
    int status;
    waitpid(reader, &status, 0);
    printf("reader %d\n", status);
    return status != 0;
}
