/* Tasks of every kind, each of which reads /nowhere/presented. Says how it went. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int reads(void) {
    char text[64] = "";
    int fd = open("/nowhere/presented", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t length = read(fd, text, sizeof text);
    close(fd);
    return length == 12 && !memcmp(text, "the stand-in", 12);
}

static int ended_well(pid_t pid) {
    int status;
    return pid > 0 && waitpid(pid, &status, __WALL) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void *read_often(void *count) {
    for (int i = 0; i < 20; i++)
        if (reads())
            __atomic_fetch_add((int *)count, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

static int threads(void) {
    pthread_t all[50];
    int count = 0;
    for (int i = 0; i < 50; i++)
        pthread_create(&all[i], NULL, read_often, &count);
    for (int i = 0; i < 50; i++)
        pthread_join(all[i], NULL);
    printf("threads: %d\n", count);
    return 0;
}

static int forks(void) {
    int good = 0;
    for (int i = 0; i < 200; i++)
        if (fork() == 0)
            _exit(!reads());
    for (int status; wait(&status) > 0;)
        good += status == 0;
    printf("forks: %d\n", good);
    return 0;
}

static void *fork_often(void *count) {
    for (int i = 0; i < 20; i++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(!reads());
        if (ended_well(pid))
            __atomic_fetch_add((int *)count, 1, __ATOMIC_SEQ_CST);
    }
    return NULL;
}

static int forking_threads(void) {
    pthread_t all[10];
    int count = 0;
    for (int i = 0; i < 10; i++)
        pthread_create(&all[i], NULL, i % 2 ? fork_often : read_often, &count);
    for (int i = 0; i < 10; i++)
        pthread_join(all[i], NULL);
    printf("forking threads: %d\n", count);
    return 0;
}

static int vforks(void) {
    pid_t pid = vfork();
    if (pid == 0)
        _exit(!reads());
    int first = ended_well(pid);
    pid = vfork();
    if (pid == 0) {
        execl("/proc/self/exe", "family", "reads", NULL);
        _exit(99);
    }
    printf("vforks: %d %d %d\n", first, ended_well(pid), reads());
    return 0;
}

static int clones(void) {
    pid_t pid = syscall(SYS_clone, CLONE_UNTRACED | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(!reads());
    printf("untraced: %d\n", ended_well(pid));
    struct clone_args args = {.exit_signal = SIGCHLD};
    pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0)
        _exit(!reads());
    printf("clone3: %d\n", ended_well(pid));
    args.flags = CLONE_UNTRACED;
    pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0)
        _exit(0);
    printf("clone3, untraced: %s\n", pid < 0 ? strerror(errno) : "made");
    printf("clone3, no arguments: %s\n", syscall(SYS_clone3, 8, sizeof args) < 0 ? strerror(errno) : "made");
    args.flags = CLONE_PARENT;
    args.exit_signal = 0;
    pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0)
        _exit(0);
    printf("clone3, a sibling: %d\n", pid > 0);
    return 0;
}

static int read_beside(void *unused) {
    (void)unused;
    for (int i = 0; i < 50; i++)
        if (!reads())
            return 1;
    return 0;
}

static int shared_memory(void) {
    pid_t pids[4];
    int good = 0;
    for (int i = 0; i < 4; i++)
        pids[i] = clone(read_beside, (char *)malloc(65536) + 65536, CLONE_VM | SIGCHLD, NULL);
    kill(pids[3], SIGKILL);
    good += read_beside(NULL) == 0;
    for (int i = 0; i < 3; i++)
        good += ended_well(pids[i]);
    waitpid(pids[3], NULL, 0);
    printf("shared memory: %d %d\n", good, reads());
    return 0;
}

static void *execute(void *unused) {
    (void)unused;
    reads();
    execl("/proc/self/exe", "family", "reads", NULL);
    return NULL;
}

static int thread_executes(void) {
    pthread_t one;
    int count = 0;
    for (int i = 0; i < 5; i++)
        pthread_create(&one, NULL, read_often, &count);
    pthread_create(&one, NULL, execute, NULL);
    while (reads() >= 0)
        ;
    return 1;
}

static void *outlive(void *first) {
    pthread_join(*(pthread_t *)first, NULL);
    printf("leader ended: %d\n", reads());
    fflush(stdout);
    exit(3);
}

static pthread_t leader;

static int leader_ends(void) {
    pthread_t other;
    leader = pthread_self();
    reads();
    pthread_create(&other, NULL, outlive, &leader);
    pthread_exit(NULL);
}

/* Finds the room in our memory where the path that stands in was written, and unmaps it. */
static int unmap_room(void) {
    uintptr_t first, last;
    char line[512], flags[8];
    const char *path = getenv("STAND_IN");
    int unmapped = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps)) {
        if (sscanf(line, "%lx-%lx %7s", &first, &last, flags) != 3 || flags[1] != 'w' || strpbrk(line, "/["))
            continue;
        for (uintptr_t page = first; page + 131072 <= last; page += 4096)
            if (!strcmp((char *)page, path))
                unmapped += munmap((void *)page, 131072) == 0, page += 131072;
    }
    fclose(maps);
    return unmapped;
}

static int unmap(void) {
    int before = reads(), unmapped = unmap_room();
    printf("unmapped: %d %d %d\n", before, unmapped, reads() + reads());
    return 0;
}

static int own_filter(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpgid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | 5),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 4000, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | 5),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EDOM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof code / sizeof *code, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter))
        return 1;
    printf("asks for a tracer: %s\n", syscall(SYS_getpgid, 0) < 0 ? strerror(errno) : "made");
    printf("no such call: %s\n", syscall(4000) < 0 ? strerror(errno) : "made");
    printf("no mmap: %s\n", open("/nowhere/presented", O_RDONLY) < 0 ? strerror(errno) : "opened");
    return 0;
}

static int limits(void) {
    struct rlimit none = {4096, RLIM_INFINITY}, all = {RLIM_INFINITY, RLIM_INFINITY};
    setrlimit(RLIMIT_AS, &none);
    int fd = open("/nowhere/presented", O_RDONLY);
    int error = errno;
    setrlimit(RLIMIT_AS, &all);
    printf("no memory: %s\n", fd < 0 ? strerror(error) : "opened");
    mlockall(MCL_CURRENT | MCL_FUTURE);
    printf("locked: %d\n", reads());
    return 0;
}

static int hides(void) {
    int status;
    if (fork() == 0) {
        prctl(PR_SET_DUMPABLE, 0);
        pid_t pid = fork();
        if (pid == 0)
            _exit(reads() ? 8 : 7);
        waitpid(pid, &status, 0);
        _exit(WEXITSTATUS(status));
    }
    wait(&status);
    printf("hidden: %d\n", WEXITSTATUS(status));
    return 0;
}

int main(int count, char **arguments) {
    static const struct { const char *name; int (*run)(void); } all[] = {
        {"threads", threads}, {"forks", forks}, {"forking_threads", forking_threads}, {"vforks", vforks},
        {"clones", clones}, {"shared_memory", shared_memory}, {"thread_executes", thread_executes},
        {"leader_ends", leader_ends}, {"unmap", unmap}, {"own_filter", own_filter}, {"limits", limits},
        {"hides", hides},
    };
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count > 1 && !strcmp(arguments[1], "reads")) {
        printf("reads: %d\n", reads());
        return 0;
    }
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (count > 1 && !strcmp(arguments[1], all[i].name))
            return all[i].run();
    return 99;
}
