/* The least that a seccomp listener can cost: notify_floor FILTER COMMAND [ARGUMENT]...
 *
 * FILTER is a file with the program that mirrord-trace itself would install (struct sock_filter[]), answering
 * SECCOMP_RET_USER_NOTIF: the same calls are stopped, with the same flags. For each, a thread of this process does what
 * any supervisor must: receive the notification, read the path or the address from the task's memory, look at it, and
 * let the call go on. Nothing is decided and nothing is redirected.
 *
 * The listener is fetched from the child with pidfd_getfd(2): the child cannot send it, for sendmsg is stopped, too. */
#include "common.h"
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

/* Newer than Debian 12's headers: linux/seccomp.h of Linux 5.19 and 6.6. */
#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif
#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP 1ULL
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

#define PAGE 4096u

static struct sock_fprog read_filter(const char *file)
{
    static struct sock_filter instructions[BPF_MAXINSNS];
    int descriptor = (int)checked(file, open(file, O_RDONLY | O_CLOEXEC));
    long length = checked("read", read(descriptor, instructions, sizeof instructions));
    close(descriptor);
    return (struct sock_fprog){.len = (unsigned short)(length / (long)sizeof *instructions), .filter = instructions};
}

static _Noreturn void child(const char *filter, int number, int word, char **argv)
{
    struct sock_fprog program = read_filter(filter);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    int listener = (int)checked("seccomp", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                                                   SECCOMP_FILTER_FLAG_NEW_LISTENER |
                                                       SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
                                                   &program));
    char c;
    checked("write", write(number, &listener, sizeof listener));
    checked("read", read(word, &c, 1));
    execvp(argv[0], argv);
    fail(argv[0]);
}

/* Which argument is a path; -1 for calls without. */
static int path_argument(int call)
{
    switch (call) {
#ifdef SYS_open
    case SYS_open:
    case SYS_stat:
    case SYS_lstat:
    case SYS_access:
    case SYS_readlink:
#endif
    case SYS_execve:
        return 0;
    case SYS_openat:
    case SYS_openat2:
    case SYS_execveat:
    case SYS_newfstatat:
    case SYS_statx:
    case SYS_faccessat:
    case SYS_faccessat2:
    case SYS_readlinkat:
        return 1;
    default:
        return -1;
    }
}

static size_t look(pid_t task, uint64_t address, size_t length, char *buffer)
{
    struct iovec here = {buffer, length}, there = {(void *)(uintptr_t)address, length};
    ssize_t got = process_vm_readv(task, &here, 1, &there, 1, 0);
    return got < 0 ? 0 : (size_t)got;
}

/* What a supervisor would want to know; volatile so that the compiler leaves the looking in. */
static volatile unsigned long interesting;

static void consider(const struct seccomp_notif *stopped)
{
    char buffer[PAGE];
    int argument = path_argument(stopped->data.nr);
    if (argument >= 0) {
        uint64_t address = stopped->data.args[argument];
        size_t got = look((pid_t)stopped->pid, address, PAGE - address % PAGE, buffer);
        const char *end = memchr(buffer, 0, got);
        if (end && end - buffer >= 5 && memcmp(end - 5, "hosts", 5) == 0)
            interesting++;
    } else if (stopped->data.nr == SYS_connect) {
        size_t length = stopped->data.args[2] & 0xffffffff;
        if (look((pid_t)stopped->pid, stopped->data.args[1], length < 128 ? length : 128, buffer) >= 2 && buffer[0] == 2)
            interesting++;
    }
}

static void *supervise(void *argument)
{
    int listener = *(int *)argument;
    /* The kernel wants the structure cleared; it may be larger than the one that we were compiled with. */
    struct seccomp_notif_sizes sizes;
    checked("seccomp", syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes));
    size_t size = sizes.seccomp_notif > sizeof(struct seccomp_notif) ? sizes.seccomp_notif : sizeof(struct seccomp_notif);
    struct seccomp_notif *stopped = malloc(size);
    for (;;) {
        memset(stopped, 0, size);
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, stopped) != 0) {
            if (errno == EINTR)
                continue;
            return NULL; /* ENOENT: the last task is gone */
        }
        consider(stopped);
        struct seccomp_notif_resp answer = {.id = stopped->id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer) != 0 && errno != ENOENT)
            fail("SECCOMP_IOCTL_NOTIF_SEND");
    }
}

int main(int argc, char **argv)
{
    if (argc < 3)
        usage("notify_floor FILTER COMMAND [ARGUMENT]...");
    int number[2], word[2];
    checked("pipe", pipe2(number, O_CLOEXEC));
    checked("pipe", pipe2(word, O_CLOEXEC));
    pid_t pid = (pid_t)checked("fork", fork());
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        child(argv[1], number[1], word[0], argv + 2);
    }
    close(number[1]);
    int theirs;
    if (read(number[0], &theirs, sizeof theirs) != (ssize_t)sizeof theirs)
        return 1; /* the child has said why */
    int process = (int)checked("pidfd_open", syscall(SYS_pidfd_open, pid, 0));
    int listener = (int)checked("pidfd_getfd", syscall(SYS_pidfd_getfd, process, theirs, 0));
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP) != 0)
        fprintf(stderr, "no SYNC_WAKE_UP: %s\n", strerror(errno));
    pthread_t thread;
    if ((errno = pthread_create(&thread, NULL, supervise, &listener)))
        fail("pthread_create");
    checked("write", write(word[1], "", 1));
    int status;
    checked("waitpid", waitpid(pid, &status, 0));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
