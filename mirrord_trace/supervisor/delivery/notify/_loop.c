/* The loop of the listener's thread, for calls that concern nobody: see loop.py, which says what it does and does the
 * same where this could not be built. A plain library, loaded with ctypes; it knows nothing of Python.
 *
 * Python's interpreter is not needed for these calls, so they neither pay for it nor wait for its lock. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#define PAGE 4096u
#define MOST_PATHS 256u

/* A call by its number, which of its arguments is a path, and its endings among all those that are given. */
struct path_test {
    int32_t number, argument;
    uint32_t first_ending, ending_count;
};

struct ending {
    const char *bytes;
    uint64_t length;
};

static const struct path_test *find(const struct path_test *tests, uint32_t count, int number)
{
    for (uint32_t i = 0; i < count; i++)
        if (tests[i].number == number)
            return &tests[i];
    return NULL;
}

/* Whether the path of a call is there to be read, not longer than most are, and ends in none of the endings. */
static int concerns_nobody(const struct seccomp_notif *call, const struct path_test *test, const struct ending *endings)
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
                         const struct ending *endings)
{
    for (;;) {
        memset(call, 0, sizeof *call); /* the kernel insists */
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, call))
            return -errno;
        const struct path_test *test = find(tests, test_count, call->data.nr);
        if (!test || !concerns_nobody(call, test, endings))
            return 0;
        struct seccomp_notif_resp answer = {.id = call->id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer) && errno != ENOENT && errno != EINPROGRESS)
            return -errno;
    }
}
