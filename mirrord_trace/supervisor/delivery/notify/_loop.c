/* The loop of the listener's thread, for calls that concern nobody: see loop.py, which says what it does and does the
 * same where this could not be built. A plain library, loaded with ctypes; it knows nothing of Python.
 *
 * Python's interpreter is not needed for these calls, so they neither pay for it nor wait for its lock. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u
#define MOST_PATHS 256u
#define LONGEST_KEY 1024u

/* A call by its number; which of its arguments is a path, and which the descriptor that it is relative to (-1: none,
 * the working directory). What concerns somebody: paths with one of these endings, among all those that are given; or,
 * where there are none, every path that is not known to be local. */
struct path_test {
    int32_t number, argument, directory;
    uint32_t first_ending, ending_count;
    uint32_t examines; /* whether it asks for no more than attributes */
};

struct text {
    const char *bytes;
    uint64_t length;
};

struct tree {
    struct text path;
    uint32_t is_local;
};

/* Keys with what is known of each: a table with open addressing, at most half full, over an arena. */
struct table {
    uint32_t capacity, count, bytes_used, bytes_size;
    struct slot {
        uint32_t hash, start, length, is_local; /* length 0: free */
    } *slots;
    char *arena;
};

/* What is known to be local: single paths; and what the nearest tree says, if none of the words is in the path. And a
 * directory, as /proc names it, whose entries with plain names may be examined for some time. */
struct known {
    struct table paths, trees;
    const struct text *words;
    uint32_t word_count;
    uint32_t shown_length;
    char shown[LONGEST_KEY];
    volatile double shown_until; /* in seconds of CLOCK_MONOTONIC; another thread may take it back */
};

static int make_table(struct table *table, uint32_t most_keys, uint32_t bytes)
{
    *table = (struct table){.capacity = 2, .bytes_size = bytes};
    while (table->capacity < 2 * most_keys)
        table->capacity *= 2;
    table->slots = calloc(table->capacity, sizeof *table->slots);
    table->arena = malloc(bytes ? bytes : 1);
    return table->slots && table->arena;
}

static void free_table(struct table *table)
{
    free(table->slots);
    free(table->arena);
    *table = (struct table){0};
}

static uint32_t hash_on(uint32_t hash, char byte) /* FNV-1a */
{
    return (hash ^ (unsigned char)byte) * 16777619u;
}

#define NO_HASH 2166136261u

static uint32_t hash_of(const char *key, size_t length)
{
    uint32_t hash = NO_HASH;
    for (size_t i = 0; i < length; i++)
        hash = hash_on(hash, key[i]);
    return hash;
}

/* The slot of a key, or the free one where it would be. */
static struct slot *slot_of(const struct table *table, const char *key, size_t length, uint32_t hash)
{
    for (uint32_t i = hash;; i++) {
        struct slot *slot = &table->slots[i & (table->capacity - 1)];
        if (!slot->length || (slot->hash == hash && slot->length == length &&
                              !memcmp(table->arena + slot->start, key, length)))
            return slot;
    }
}

/* A key that finds no room is not kept. */
static void add(struct table *table, const char *key, uint32_t length, uint32_t is_local)
{
    uint32_t hash = hash_of(key, length);
    struct slot *slot = slot_of(table, key, length, hash);
    if (slot->length || !length || 2 * table->count >= table->capacity || length > table->bytes_size - table->bytes_used)
        return;
    memcpy(table->arena + table->bytes_used, key, length);
    *slot = (struct slot){hash, table->bytes_used, length, is_local};
    table->bytes_used += length;
    table->count++;
}

struct known *mirrord_known_new(uint32_t most_paths, uint32_t bytes)
{
    struct known *known = calloc(1, sizeof *known);
    if (known && make_table(&known->paths, most_paths, bytes))
        return known;
    if (known)
        free_table(&known->paths);
    free(known);
    return NULL;
}

void mirrord_known_free(struct known *known)
{
    if (!known)
        return;
    free_table(&known->paths);
    free_table(&known->trees);
    free(known);
}

void mirrord_known_add_path(struct known *known, const char *key, uint32_t length)
{
    add(&known->paths, key, length, 1);
}

void mirrord_known_forget_paths(struct known *known)
{
    known->paths.count = known->paths.bytes_used = 0;
    memset(known->paths.slots, 0, known->paths.capacity * sizeof *known->paths.slots);
}

/* Takes the place of the trees before. The words stay the caller's. Without room for the trees there are none. */
void mirrord_known_use_trees(struct known *known, const struct tree *trees, uint32_t count, const struct text *words,
                             uint32_t word_count)
{
    uint32_t bytes = 0;
    for (uint32_t i = 0; i < count; i++)
        bytes += (uint32_t)trees[i].path.length;
    free_table(&known->trees);
    known->words = words;
    known->word_count = word_count;
    if (!count)
        return;
    if (!make_table(&known->trees, count, bytes)) {
        free_table(&known->trees);
        return;
    }
    for (uint32_t i = 0; i < count; i++)
        add(&known->trees, trees[i].path.bytes, (uint32_t)trees[i].path.length, trees[i].is_local);
}

static const struct path_test *find(const struct path_test *tests, uint32_t count, int number)
{
    for (uint32_t i = 0; i < count; i++)
        if (tests[i].number == number)
            return &tests[i];
    return NULL;
}

/* Puts the components of a path behind a normalised one, of `length` bytes; the root has none. Its new length; or -1
 * for what no tree holds: a path with `..` in it, for then links on the way matter, and one that is too long. */
static ssize_t join(char *whole, ssize_t length, const char *path, size_t path_length)
{
    for (const char *end = path + path_length; length >= 0 && path < end; path++) {
        const char *slash = memchr(path, '/', (size_t)(end - path));
        ssize_t size = (slash ? slash : end) - path;
        if (size > 1 || (size == 1 && path[0] != '.')) {
            if ((size == 2 && path[0] == '.' && path[1] == '.') || length + 1 + size > LONGEST_KEY)
                return -1;
            whole[length] = '/';
            memcpy(whole + length + 1, path, (size_t)size);
            length += 1 + size;
        }
        path += size;
    }
    return length;
}

static int has_word(const struct known *known, const char *path, size_t length)
{
    char lowered[LONGEST_KEY];
    if (!known->word_count)
        return 0;
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)path[i] > 127)
            return 1; /* it may count as a letter of ASCII in another case */
        lowered[i] = (char)(path[i] >= 'A' && path[i] <= 'Z' ? path[i] - 'A' + 'a' : path[i]);
    }
    for (uint32_t i = 0; i < known->word_count; i++)
        if (memmem(lowered, length, known->words[i].bytes, known->words[i].length))
            return 1;
    return 0;
}

/* Whether a path in a directory is known to be local with all the tree that it is in: `LocalTrees.hold`. */
static int is_in_local_tree(const struct known *known, const char *directory, size_t directory_length,
                            const char *path, size_t path_length)
{
    const struct table *trees = &known->trees;
    if (!trees->count)
        return 0;
    char whole[LONGEST_KEY];
    ssize_t length = join(whole, join(whole, 0, directory, directory_length), path, path_length);
    if (length < 0 || has_word(known, whole, (size_t)length))
        return 0;
    uint32_t is_local = slot_of(trees, "/", 1, hash_of("/", 1))->is_local;
    uint32_t hash = NO_HASH;
    for (ssize_t i = 0; i < length;) {
        do
            hash = hash_on(hash, whole[i++]);
        while (i < length && whole[i] != '/');
        const struct slot *slot = slot_of(trees, whole, (size_t)i, hash);
        if (slot->length)
            is_local = slot->is_local;
    }
    return (int)is_local;
}

void mirrord_known_show_by_name(struct known *known, const char *directory, uint32_t length, double until)
{
    known->shown_until = 0;
    if (!length || length > sizeof known->shown)
        return;
    memcpy(known->shown, directory, length);
    known->shown_length = length;
    known->shown_until = until;
}

/* `LocalPaths.is_shown`, with `is_plain_name`. */
static int is_shown(const struct known *known, const char *directory, size_t directory_length, const char *path,
                    size_t length)
{
    if (directory_length != known->shown_length || memcmp(directory, known->shown, directory_length) ||
        memchr(path, '.', length) || memchr(path, '/', length) ||
        (length >= 12 && !strncasecmp(path, "node_modules", 12)) || (length >= 4 && !strncasecmp(path, "clr-", 4)))
        return 0;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9 < known->shown_until;
}

/* Whether a path is known to be local: absolute ones by themselves, others behind the directory that they are relative
 * to, as /proc names it, and a NUL. */
static int is_known(const struct seccomp_notif *call, const struct path_test *test, const struct known *known,
                    const char *path, size_t length)
{
    if (!length)
        return 0;
    if (path[0] == '/')
        return is_in_local_tree(known, "", 0, path, length) ||
               slot_of(&known->paths, path, length, hash_of(path, length))->length != 0;
    char link[64], key[LONGEST_KEY];
    int descriptor = test->directory < 0 ? AT_FDCWD : (int)call->data.args[test->directory];
    if (descriptor == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/%u/cwd", call->pid);
    else
        snprintf(link, sizeof link, "/proc/%u/fd/%d", call->pid, descriptor);
    ssize_t directory = readlink(link, key, sizeof key);
    if (directory <= 0 || (size_t)directory + 1 + length > sizeof key)
        return 0;
    if (test->examines && is_shown(known, key, (size_t)directory, path, length))
        return 1;
    if (key[0] == '/' && is_in_local_tree(known, key, (size_t)directory, path, length))
        return 1;
    key[directory] = 0;
    memcpy(key + directory + 1, path, length);
    length += (size_t)directory + 1;
    return slot_of(&known->paths, key, length, hash_of(key, length))->length != 0;
}

/* How long the path at an address is, which is put into `path`; -1 where it cannot be read or is longer than most.
 * Never beyond the page in which it ends: the next one may not be there, or have to be waited for. */
static ssize_t read_path(pid_t task, uint64_t address, char path[MOST_PATHS])
{
    for (size_t had = 0, length; had < MOST_PATHS; had += length) {
        length = PAGE - ((address + had) & (PAGE - 1));
        if (length > MOST_PATHS - had)
            length = MOST_PATHS - had;
        struct iovec here = {path + had, length}, there = {(void *)(uintptr_t)(address + had), length};
        if (process_vm_readv(task, &here, 1, &there, 1, 0) != (ssize_t)length)
            return -1;
        const char *end = memchr(path + had, 0, length);
        if (end)
            return end - path;
    }
    return -1;
}

/* Whether the path of a call is there to be read, not longer than most are, and of no interest. */
static int concerns_nobody(const struct seccomp_notif *call, const struct path_test *test, const struct text *endings,
                           const struct known *known)
{
    char path[MOST_PATHS];
    ssize_t read = read_path((pid_t)call->pid, call->data.args[test->argument], path);
    if (read < 0)
        return 0;
    size_t length = (size_t)read;
    if (!test->ending_count)
        return is_known(call, test, known, path, length);
    for (uint32_t i = 0; i < test->ending_count; i++) {
        const struct text *ending = &endings[test->first_ending + i];
        if (length >= ending->length && !memcmp(path + length - ending->length, ending->bytes, ending->length))
            return 0;
    }
    return 1;
}

/* Lets go of calls that concern nobody until one comes that may. 0 with that one in `call`; or a negative errno:
 * -EINTR when a signal came, -ENOENT when there was no notification after all. */
int mirrord_receive_call(int listener, struct seccomp_notif *call, const struct path_test *tests, uint32_t test_count,
                         const struct text *endings, const struct known *known)
{
    for (;;) {
        memset(call, 0, sizeof *call); /* the kernel insists */
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, call))
            return -errno;
        const struct path_test *test = find(tests, test_count, call->data.nr);
        if (!test || !concerns_nobody(call, test, endings, known))
            return 0;
        struct seccomp_notif_resp answer = {.id = call->id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer) && errno != ENOENT && errno != EINPROGRESS)
            return -errno;
    }
}
