/* process_tree HOST ECHO: every way to make a process or a thread, each of which reaches the pod. */
#include "conformance.h"
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/syscall.h>

extern char **environ;
static const char *host, *port;
static char *program;

static void report(const char *how) {
    int fd = connected(host, atoi(port));
    printf("%s: %s\n", how, echoes(fd));
    close(fd);
}

static void finish(const char *how, pid_t child) {
    int status = 0;
    if (child < 0) printf("%s: %s\n", how, errno_name(errno));
    else if (waitpid(child, &status, __WALL) != child) printf("%s: not waited for: %s\n", how, errno_name(errno));
    else if (WIFSIGNALED(status)) printf("%s: signal %d\n", how, WTERMSIG(status));
    else printf("%s: exit %d\n", how, WEXITSTATUS(status));
}

static void *thread_main(void *how) {
    report(how);
    return NULL;
}

static int clone_main(void *how) {
    report(how);
    return 5;
}

static int shared_descriptor = -1;
static int opens_a_socket(void *how) {
    (void)how;
    shared_descriptor = connected(host, atoi(port));
    return 0;
}

static int clone_stack_main(int (*main_function)(void *), int flags, void *argument) {
    size_t size = 1 << 20;
    char *stack = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    return clone(main_function, stack + size, flags, argument);
}

int main(int argc, char **argv) {
    begin();
    if (argc < 3) return 98;
    program = "/proc/self/exe";
    host = argv[1];
    port = argv[2];
    if (argc == 4) {
        report(argv[3]);
        return 3;
    }
    char *arguments[] = {argv[0], argv[1], argv[2], "an executed child", NULL};

    pid_t child = fork();
    if (!child) {
        report("a forked child");
        _exit(4);
    }
    finish("fork", child);
    child = fork();
    if (!child) execv(program, arguments);
    finish("fork and exec", child);
    char own_path[4096];
    ssize_t length = readlink("/proc/self/exe", own_path, sizeof own_path - 1);
    own_path[length < 0 ? 0 : length] = 0;
    child = vfork();
    if (!child) {
        execv(own_path, arguments);
        _exit(9);
    }
    finish("vfork and exec", child);
    child = vfork();
    if (!child) _exit(6);
    finish("vfork and exit", child);
    child = vfork();
    if (!child) {
        execv("/nonexistent", arguments);
        _exit(errno == ENOENT ? 7 : 8);
    }
    finish("vfork and failed exec", child);
    int failed = posix_spawn(&child, own_path, NULL, NULL, arguments, environ);
    if (failed) printf("posix_spawn: %s\n", errno_name(failed));
    else finish("posix_spawn", child);
    failed = posix_spawn(&child, "/nonexistent", NULL, NULL, arguments, environ);
    printf("posix_spawn of nothing: %s\n", errno_name(failed));

    pthread_t thread;
    pthread_create(&thread, NULL, thread_main, "a thread");
    pthread_join(thread, NULL);
    finish("clone", clone_stack_main(clone_main, SIGCHLD, "a clone"));
    finish("clone with its parent's memory", clone_stack_main(clone_main, CLONE_VM | CLONE_VFORK | SIGCHLD, "a clone with its parent's memory"));
    finish("clone without a signal", clone_stack_main(clone_main, 0, "a clone without a signal"));
    finish("clone with its parent's descriptors", clone_stack_main(opens_a_socket, CLONE_FILES | CLONE_VM | SIGCHLD, NULL));
    printf("the socket it opened: %s, %s\n", peer_of(shared_descriptor), echoes(shared_descriptor));

    struct { unsigned long long flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls; } wanted = {0};
    wanted.exit_signal = SIGCHLD;
    child = syscall(SYS_clone3, &wanted, sizeof wanted);
    if (!child) {
        report("a clone3 child");
        _exit(2);
    }
    finish("clone3", child);
    child = syscall(SYS_clone, CLONE_UNTRACED | SIGCHLD, 0, 0, 0, 0);
    if (!child) {
        report("a child cloned untraced");
        _exit(2);
    }
    finish("clone with CLONE_UNTRACED", child);
    child = fork();
    if (!child) {
        pid_t grandchild = fork();
        if (!grandchild) {
            setsid();
            pid_t great = fork();
            if (!great) {
                report("a daemon");
                _exit(0);
            }
            waitpid(great, NULL, 0);
            _exit(0);
        }
        waitpid(grandchild, NULL, 0);
        _exit(0);
    }
    finish("a daemon's first parent", child);
    child = fork();
    if (!child) {
        raise(SIGKILL);
    }
    finish("a killed child", child);
    child = fork();
    if (!child) {
        abort();
    }
    finish("an aborted child", child);
    printf("no children are left: %s\n", outcome(waitpid(-1, NULL, __WALL)));
    return 0;
}
