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
#include <sys/ioctl.h>
#include <sys/uio.h>
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
};

struct ending {
    const char *bytes;
    uint64_t length;
};

/* Keys of paths that are known to be local: a table with open addressing, at most half full, over an arena. */
struct known {
    uint32_t capacity, count, bytes_used, bytes_size;
    struct slot {
        uint32_t hash, start, length; /* length 0: free */
    } *slots;
    char *arena;
};

struct known *mirrord_known_new(uint32_t most_keys, uint32_t bytes)
{
    struct known *known = calloc(1, sizeof *known);
    if (!known)
        return NULL;
    for (known->capacity = 2; known->capacity < 2 * most_keys; known->capacity *= 2)
        ;
    known->bytes_size = bytes;
    known->slots = calloc(known->capacity, sizeof *known->slots);
    known->arena = malloc(bytes);
    if (known->slots && known->arena)
        return known;
    free(known->slots);
    free(known->arena);
    free(known);
    return NULL;
}

void mirrord_known_free(struct known *known)
{
    if (!known)
        return;
    free(known->slots);
    free(known->arena);
    free(known);
}

void mirrord_known_clear(struct known *known)
{
    known->count = known->bytes_used = 0;
    memset(known->slots, 0, known->capacity * sizeof *known->slots);
}

static uint32_t hash_of(const char *key, size_t length) /* FNV-1a */
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)key[i]) * 16777619u;
    return hash;
}

/* The slot of a key, or the free one where it would be. */
static struct slot *slot_of(const struct known *known, const char *key, size_t length, uint32_t hash)
{
    for (uint32_t i = hash;; i++) {
        struct slot *slot = &known->slots[i & (known->capacity - 1)];
        if (!slot->length || (slot->hash == hash && slot->length == length &&
                              !memcmp(known->arena + slot->start, key, length)))
            return slot;
    }
}

/* A key that finds no room is not kept. */
void mirrord_known_add(struct known *known, const char *key, uint32_t length)
{
    uint32_t hash = hash_of(key, length);
    struct slot *slot = slot_of(known, key, length, hash);
    if (slot->length || !length || 2 * known->count >= known->capacity || length > known->bytes_size - known->bytes_used)
        return;
    memcpy(known->arena + known->bytes_used, key, length);
    *slot = (struct slot){hash, known->bytes_used, length};
    known->bytes_used += length;
    known->count++;
}

static const struct path_test *find(const struct path_test *tests, uint32_t count, int number)
{
    for (uint32_t i = 0; i < count; i++)
        if (tests[i].number == number)
            return &tests[i];
    return NULL;
}

/* Whether a path is known to be local: absolute ones by themselves, others behind the directory that they are relative
 * to, as /proc names it, and a NUL. */
static int is_known(const struct seccomp_notif *call, const struct path_test *test, const struct known *known,
                    const char *path, size_t length)
{
    if (!length)
        return 0;
    if (path[0] == '/')
        return slot_of(known, path, length, hash_of(path, length))->length != 0;
    char link[64], key[LONGEST_KEY];
    int descriptor = test->directory < 0 ? AT_FDCWD : (int)call->data.args[test->directory];
    if (descriptor == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/%u/cwd", call->pid);
    else
        snprintf(link, sizeof link, "/proc/%u/fd/%d", call->pid, descriptor);
    ssize_t directory = readlink(link, key, sizeof key);
    if (directory <= 0 || (size_t)directory + 1 + length > sizeof key)
        return 0;
    key[directory] = 0;
    memcpy(key + directory + 1, path, length);
    length += (size_t)directory + 1;
    return slot_of(known, key, length, hash_of(key, length))->length != 0;
}

/* Whether the path of a call is there to be read, not longer than most are, and of no interest. */
static int concerns_nobody(const struct seccomp_notif *call, const struct path_test *test, const struct ending *endings,
                           const struct known *known)
{
    char path[MOST_PATHS];
    uint64_t address = call->data.args[test->argument];
    size_t length = PAGE - (address & (PAGE - 1)); /* never beyond the page, which may be the last one there is */
    if (length > sizeof path)
        length = sizeof path;
    struct iovec here = {path, length}, there = {(void *)(uintptr_t)address, length};
    if (process_vm_readv((pid_t)call->pid, &here, 1, &there, 1, 0) != (ssize_t)length)
        return 0;
    const char *end = memchr(path, 0, length);
    if (!end)
        return 0;
    length = (size_t)(end - path);
    if (!test->ending_count)
        return is_known(call, test, known, path, length);
    for (uint32_t i = 0; i < test->ending_count; i++) {
        const struct ending *ending = &endings[test->first_ending + i];
        if (length >= ending->length && !memcmp(end - ending->length, ending->bytes, ending->length))
            return 0;
    }
    return 1;
}

/* Lets go of calls that concern nobody until one comes that may. 0 with that one in `call`; or a negative errno:
 * -EINTR when a signal came, -ENOENT when there was no notification after all. */
int mirrord_receive_call(int listener, struct seccomp_notif *call, const struct path_test *tests, uint32_t test_count,
                         const struct ending *endings, const struct known *known)
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
