// A pool of libpmemobj, and what becomes of it when its program is killed.
//   pool make POOL              a new one
//   pool work POOL COUNT        so many transactions; says after each how many there have been (COUNT 0: for ever)
//   pool check POOL AT_LEAST    opens it, which recovers it, and checks it
//   pool kills POOL TIMES       kills `work` in the midst, and now and then `check` too
//   pool granularity FILE       what libpmem2 says of a file
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <libpmem2.h>
#include <libpmemobj.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define COUNTERS 512
#define SIZE (32 << 20)

struct note { uint64_t number; PMEMoid before; char text[200]; };
// Every transaction adds one to a counter and to the total, and puts a note before the last one; old notes are freed.
struct root { uint64_t total; uint64_t counters[COUNTERS]; PMEMoid last; uint64_t notes; };

// Calls of msync(2), of which there are none in transactions where the library takes the pool for persistent memory.
static unsigned long syncs;

int msync(void *start, size_t size, int flags) {
    static int (*next)(void *, size_t, int);
    if (!next) next = (int (*)(void *, size_t, int))dlsym(RTLD_NEXT, "msync");
    syncs++;
    return next(start, size, flags);
}

static void die(const char *what) { fprintf(stderr, "%s: %s\n", what, pmemobj_errormsg()); exit(1); }

static PMEMobjpool *open_pool(const char *path, struct root **root, PMEMoid *object) {
    PMEMobjpool *pool = pmemobj_open(path, "kills");
    if (!pool) die("pmemobj_open");
    *object = pmemobj_root(pool, sizeof(struct root));
    *root = pmemobj_direct(*object);
    return pool;
}

static void work(const char *path, uint64_t count) {
    struct root *root;
    PMEMoid object;
    PMEMobjpool *pool = open_pool(path, &root, &object);
    srand((unsigned)(time(NULL) ^ getpid()));
    unsigned long before = syncs;
    for (uint64_t done = 0; count == 0 || done < count; done++) {
        uint64_t at = (uint64_t)rand() % COUNTERS;
        TX_BEGIN(pool) {
            pmemobj_tx_add_range_direct(&root->total, sizeof root->total);
            pmemobj_tx_add_range_direct(&root->counters[at], sizeof(uint64_t));
            pmemobj_tx_add_range_direct(&root->last, sizeof root->last);
            pmemobj_tx_add_range_direct(&root->notes, sizeof root->notes);
            PMEMoid new = pmemobj_tx_alloc(sizeof(struct note), 1);
            struct note *note = pmemobj_direct(new);
            note->number = root->total + 1;
            note->before = root->last;
            memset(note->text, 'a' + (int)(note->number % 26), sizeof note->text);
            root->total++;
            root->counters[at]++;
            root->last = new;
            root->notes++;
            if (root->notes > 1000) {
                for (PMEMoid old = note->before; !OID_IS_NULL(old);) {
                    PMEMoid next = ((struct note *)pmemobj_direct(old))->before;
                    pmemobj_tx_free(old);
                    old = next;
                }
                note->before = OID_NULL;
                root->notes = 1;
            }
        } TX_ONABORT { die("transaction"); } TX_END
        if (getenv("LODEFS_RUN_MOUNTS") && syncs != before) { fprintf(stderr, "not taken for persistent memory\n"); exit(1); }
        if (count == 0 && write(1, &root->total, 8) != 8) break;
    }
    if (count) printf("%llu\n", (unsigned long long)root->total);
    pmemobj_close(pool);
}

static void check(const char *path, uint64_t at_least) {
    struct root *root;
    PMEMoid object;
    PMEMobjpool *pool = open_pool(path, &root, &object);
    uint64_t sum = 0, notes = 0, number = root->total, objects = 0;
    for (int at = 0; at < COUNTERS; at++) sum += root->counters[at];
    for (PMEMoid one = root->last; !OID_IS_NULL(one); notes++, number--) {
        struct note *note = pmemobj_direct(one);
        if (note->number != number || note->text[99] != 'a' + (int)(number % 26)) { fprintf(stderr, "note %llu\n", (unsigned long long)number); exit(1); }
        one = note->before;
    }
    for (PMEMoid one = pmemobj_first(pool); !OID_IS_NULL(one); one = pmemobj_next(one)) objects++;
    if (sum != root->total || root->total < at_least || notes != root->notes || objects != notes) {
        fprintf(stderr, "total %llu, sum %llu, at least %llu; notes %llu, %llu, objects %llu\n", (unsigned long long)root->total, (unsigned long long)sum,
                (unsigned long long)at_least, (unsigned long long)root->notes, (unsigned long long)notes, (unsigned long long)objects);
        exit(1);
    }
    pmemobj_close(pool);
}

static pid_t start(const char *self, const char *what, const char *path, uint64_t number, int out) {
    char text[32];
    snprintf(text, sizeof text, "%llu", (unsigned long long)number);
    pid_t child = fork();
    if (child == 0) {
        if (out >= 0) dup2(out, 1);
        execl(self, self, what, path, text, NULL);
        _exit(127);
    }
    return child;
}

static void pause_for(int microseconds) {
    struct timespec time = {microseconds / 1000000, microseconds % 1000000 * 1000L};
    nanosleep(&time, NULL);
}

static void kills(const char *self, const char *path, int times) {
    uint64_t told = 0, all = 0;
    srand(1);
    for (int round = 0; round < times; round++) {
        int out[2], status;
        if (pipe2(out, O_CLOEXEC)) exit(1);
        fcntl(out[1], F_SETPIPE_SZ, 1 << 20);
        pid_t child = start(self, "work", path, 0, out[1]);
        close(out[1]);
        uint64_t number, before = told;
        // It has begun, most times.
        if (rand() % 8 && read(out[0], &number, 8) == 8) told = number;
        pause_for(rand() % 8000);
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        while (read(out[0], &number, 8) == 8) told = number;
        close(out[0]);
        all += told - before;
        for (int again = rand() % 3; again > 0; again--) {
            child = start(self, "check", path, told, -1);
            pause_for(rand() % 12000);
            kill(child, SIGKILL);
            waitpid(child, &status, 0);
            if (WIFEXITED(status) && WEXITSTATUS(status)) exit(1);
        }
        child = start(self, "check", path, told, -1);
        waitpid(child, &status, 0);
        if (status) { fprintf(stderr, "round %d: status %d\n", round, status); exit(1); }
    }
    fprintf(stderr, "%d kills, %llu transactions that had been told\n", times, (unsigned long long)all);
    printf("nothing lost\n");
}

static void granularity(const char *path) {
    int file = open(path, O_RDWR | O_CREAT, 0644);
    struct pmem2_config *config;
    struct pmem2_source *source;
    struct pmem2_map *map;
    if (file < 0 || ftruncate(file, 4 << 20) || pmem2_config_new(&config) || pmem2_source_from_fd(&source, file)) exit(1);
    pmem2_config_set_required_store_granularity(config, PMEM2_GRANULARITY_PAGE);
    if (pmem2_map_new(&map, config, source)) { fprintf(stderr, "%s\n", pmem2_errormsg()); exit(1); }
    // Of which tmpfs and a mount know nothing: to standard error.
    fprintf(stderr, "granularity %d\n", (int)pmem2_map_get_store_granularity(map));
    if (getenv("LODEFS_RUN_MOUNTS") && pmem2_map_get_store_granularity(map) != PMEM2_GRANULARITY_CACHE_LINE) exit(1);
    char *at = pmem2_map_get_address(map);
    pmem2_get_memcpy_fn(map)(at + 5000, "persistent", 11, 0);
    char read[11];
    if (pread(file, read, 11, 5000) != 11) exit(1);
    printf("%s\n", read);
    pmem2_map_delete(&map);
}

int main(int argc, char **arguments) {
    if (argc < 3) return 2;
    const char *what = arguments[1], *path = arguments[2];
    uint64_t number = argc > 3 ? strtoull(arguments[3], NULL, 10) : 0;
    if (!strcmp(what, "make")) {
        PMEMobjpool *pool = pmemobj_create(path, "kills", SIZE, 0644);
        if (!pool) die("pmemobj_create");
        pmemobj_root(pool, sizeof(struct root));
        pmemobj_close(pool);
    } else if (!strcmp(what, "work")) work(path, number);
    else if (!strcmp(what, "check")) check(path, number);
    else if (!strcmp(what, "kills")) kills(arguments[0], path, (int)number);
    else if (!strcmp(what, "granularity")) granularity(path);
    else return 2;
    return 0;
}
