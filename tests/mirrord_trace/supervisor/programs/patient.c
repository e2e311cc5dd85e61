/* Makes calls that are made for it with another path, and says what it sees of that. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static volatile sig_atomic_t seen, sender;

static void see(int number, siginfo_t *info, void *context) {
    (void)number;
    (void)context;
    seen++;
    sender = info->si_pid;
}

static void handle(int number, int flags) {
    struct sigaction action = {.sa_sigaction = see, .sa_flags = SA_SIGINFO | flags};
    sigaction(number, &action, NULL);
}

static void say(const char *what, long result) { printf("%s: %s\n", what, result < 0 ? strerror(errno) : "made"); }

static void *change_directory(void *path) {
    say("chdir", chdir(path));
    return NULL;
}

static void *execute(void *path) {
    char *arguments[] = {"patient", "status", NULL};
    execve(path, arguments, environ);
    say("execve", -1);
    return NULL;
}

static void *read_a_byte(void *unused) {
    char byte;
    return read(0, &byte, 1) == 1 ? unused : NULL;
}

static void *execute_when_told(void *path) { return read_a_byte(path) ? execute(path) : NULL; }

static pthread_t start(void *(*function)(void *), void *argument) {
    pthread_t thread;
    pthread_create(&thread, NULL, function, argument);
    return thread;
}

static void say_signals(void) {
    sigset_t blocked, pending;
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    sigpending(&pending);
    for (int number = 1; number < 32; number++)
        if (sigismember(&blocked, number) || sigismember(&pending, number))
            printf("signal %d:%s%s\n", number, sigismember(&blocked, number) ? " blocked" : "",
                   sigismember(&pending, number) ? " pending" : "");
}

static void say_descriptor(const char *call, long descriptor) {
    struct stat status;
    if (descriptor < 0 || fstat(descriptor, &status)) {
        say(call, -1);
        return;
    }
    printf("%s: inode %lu,%s%s\n", call, status.st_ino, fcntl(descriptor, F_GETFL) & O_PATH ? " O_PATH" : "",
           fcntl(descriptor, F_GETFD) & FD_CLOEXEC ? " FD_CLOEXEC" : "");
    close(descriptor);
}

/* The lines of /proc/self/maps that are not the heap's or the stack's, which grow. */
static unsigned long mapped(void) {
    char line[512];
    unsigned long sum = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps))
        if (!strstr(line, "[heap]") && !strstr(line, "[stack]"))
            sum++;
    fclose(maps);
    return sum;
}

static void *open_often(void *path) {
    int wanted = atoi(strrchr(path, '/') + 1), failures = 0;
    for (int i = 0; i < 50; i++) {
        char name[16] = "";
        int descriptor = open(path, O_PATH);
        int below = openat(descriptor, "number", O_RDONLY);
        failures += read(below, name, sizeof name) < 1 || atoi(name) != wanted;
        close(below);
        close(descriptor);
    }
    return (void *)(intptr_t)failures;
}

int main(int count, char **arguments) {
    const char *what = arguments[1];
    char *path = count > 2 ? arguments[2] : "", *program = count > 3 ? arguments[3] : "/proc/self/exe", text[4096];
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!strcmp(what, "chdir")) {
        for (int i = 2; i < count; i++) {
            say("chdir", chdir(arguments[i]));
            printf("in %s\n", getcwd(text, sizeof text));
        }
    } else if (!strcmp(what, "chdir_in_thread")) {
        pthread_join(start(change_directory, path), NULL);
        printf("in %s\n", getcwd(text, sizeof text));
    } else if (!strcmp(what, "o_path")) {
        struct open_how how = {.flags = O_PATH};
#ifdef SYS_open
        say_descriptor("open", syscall(SYS_open, path, O_PATH));
#endif
        say_descriptor("openat", syscall(SYS_openat, 99, path, O_PATH | O_CLOEXEC));
        say_descriptor("openat2", syscall(SYS_openat2, 99, path, &how, sizeof how));
    } else if (!strcmp(what, "status")) {
        printf("%s, process %s\n", arguments[0], getpid() == syscall(SYS_gettid) ? "as a whole" : "in a thread");
        say_signals();
    } else if (!strcmp(what, "execve")) {
        sigset_t some;
        sigemptyset(&some);
        sigaddset(&some, SIGUSR1);
        sigprocmask(SIG_BLOCK, &some, NULL);
        execute(path);
    } else if (!strcmp(what, "execveat")) {
        char *given[] = {"patient", "status", NULL};
        syscall(SYS_execveat, 99, path, given, environ, 0);
        say("execveat", -1);
    } else if (!strcmp(what, "execve_in_thread")) {
        pthread_t waiting = start(read_a_byte, NULL);
        pthread_join(start(execute, path), NULL);
        pthread_cancel(waiting);
        pthread_join(waiting, NULL);
    } else if (!strcmp(what, "vfork")) {
        unsigned long before = 0, status = 0;
        for (int i = 0; i < 30; i++) {
            int ended;
            char *given[] = {"true", NULL};
            pid_t child = vfork();
            if (child == 0) {
                execve(path, given, environ);
                _exit(99);
            }
            waitpid(child, &ended, 0);
            status |= ended;
            before = i ? before : mapped();
        }
        printf("ended with %lu, %ld more mappings\n", status, (long)(mapped() - before));
    } else if (!strcmp(what, "occupied")) {
        static char *const usual = (char *)0x6d6900000000;
        char *ours = mmap(usual, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        unsigned long before = mapped();
        say("chdir", chdir(path));
        printf("in %s\n", getcwd(text, sizeof text));
        printf("ours has a %d, %ld more mappings\n", *ours, (long)(mapped() - before));
    } else if (!strcmp(what, "signals")) {
        sigset_t some;
        sigemptyset(&some);
        sigaddset(&some, SIGUSR1);
        sigprocmask(SIG_BLOCK, &some, NULL);
        handle(SIGUSR2, 0);
        say("chdir", chdir(path));
        printf("in %s\n", getcwd(text, sizeof text));
        printf("seen %d from %d\n", seen, sender);
        say_signals();
    } else if (!strcmp(what, "storm")) {
        /* Natively a chdir never fails with EINTR. A filter with a listener lets it, where a handler is not to restart
         * calls and the signal comes before anybody has heard of the call. */
        struct itimerval often = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
        long made = 0;
        handle(SIGALRM, strcmp(arguments[4], "restart") ? 0 : SA_RESTART);
        setitimer(ITIMER_REAL, &often, NULL);
        for (int i = 0; i < 300; i++) {
            struct stat wanted, got;
            const char *next = arguments[2 + i % 2];
            while (chdir(next))
                if (errno != EINTR || !strcmp(arguments[4], "restart"))
                    say("chdir", -1);
            made += !stat(".", &got) && !stat(next + strlen("/remote"), &wanted) && got.st_ino == wanted.st_ino;
        }
        setitimer(ITIMER_REAL, &never, NULL);
        printf("made %ld, %s\n", made, seen ? "with alarms" : "without alarms");
    } else if (!strcmp(what, "threads")) {
        pthread_t threads[8];
        long failures = 0;
        for (int i = 2; i < count; i++)
            threads[i - 2] = start(open_often, arguments[i]);
        for (int i = 2; i < count; i++) {
            void *result;
            pthread_join(threads[i - 2], &result);
            failures += (intptr_t)result;
        }
        printf("failures: %ld\n", failures);
    } else if (!strcmp(what, "exec_beside_thread") || !strcmp(what, "exec_beside_leader")) {
        /* One thread changes the directory while another executes, when it is told to. */
        int is_leader = !strcmp(what, "exec_beside_leader");
        pthread_t other = start(is_leader ? execute_when_told : change_directory, is_leader ? program : path);
        (is_leader ? change_directory : execute_when_told)(is_leader ? path : program);
        pthread_join(other, NULL);
    }
    return 0;
}
