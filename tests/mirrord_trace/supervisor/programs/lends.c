/* Has its descriptors borrowed: fsync of a socket answers with its port, fdatasync does so later, connect sets an option. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int bound(int *port) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    inet_aton("127.0.0.1", &address.sin_addr);
    bind(fd, (struct sockaddr *)&address, sizeof address);
    getsockname(fd, (struct sockaddr *)&address, &length);
    *port = ntohs(address.sin_port);
    return fd;
}

static int descriptors(void) {
    int count = 0;
    DIR *directory = opendir("/proc/self/fd");
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

static int connects(int *keepalive) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(80)};
    socklen_t length = sizeof *keepalive;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    inet_aton("198.18.0.1", &address.sin_addr);
    int result = connect(fd, (struct sockaddr *)&address, sizeof address);
    getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, keepalive, &length);
    close(fd);
    return result;
}

static int once(void) {
    int port, keepalive, fd = bound(&port), before = descriptors();
    printf("at once: %s\n", syscall(SYS_fsync, fd) == port ? "its port" : "?");
    printf("later: %s\n", syscall(SYS_fdatasync, fd) == port ? "its port" : "?");
    printf("bad descriptor: %s\n", fsync(99) < 0 ? strerror(errno) : "made");
    int result = connects(&keepalive);
    printf("connect: %s, keepalive %d\n", result ? strerror(errno) : "made", keepalive);
    printf("descriptors: %s\n", descriptors() == before ? "same" : "changed");
    sigset_t blocked;
    sigprocmask(SIG_BLOCK, NULL, &blocked);
    printf("signals blocked: %s\n", sigisemptyset(&blocked) ? "none" : "some");
    return 0;
}

static int seen, sent, lent;

static void see(int number) {
    (void)number;
    __atomic_fetch_add(&seen, 1, __ATOMIC_SEQ_CST);
}

/* Nobody ends before all signals are sent: a thread that ends takes with it what is pending for it. */
static pthread_barrier_t sent_all;

static void *lend_often(void *unused) {
    int port, fd = bound(&port);
    for (int i = 0; i < 100; i++)
        if (syscall(i % 2 ? SYS_fsync : SYS_fdatasync, fd) == port)
            __atomic_fetch_add(&lent, 1, __ATOMIC_SEQ_CST);
    pthread_barrier_wait(&sent_all);
    return unused;
}

static int storm(void) {
    pthread_t all[4];
    struct sigaction action = {.sa_handler = see, .sa_flags = SA_RESTART};
    int status, stops = 0;
    sigaction(SIGRTMIN + 1, &action, NULL);
    pid_t worker = fork();
    if (worker == 0) {
        pthread_barrier_init(&sent_all, NULL, 5);
        for (int i = 0; i < 4; i++)
            pthread_create(&all[i], NULL, lend_often, NULL);
        for (int i = 0; i < 300; i++) {
            union sigval value = {0};
            sent += sigqueue(getpid(), SIGRTMIN + 1, value) == 0;
            sent += pthread_sigqueue(all[i % 4], SIGRTMIN + 1, value) == 0;
        }
        pthread_barrier_wait(&sent_all);
        for (int i = 0; i < 4; i++)
            pthread_join(all[i], NULL);
        printf("lent: %d of 400\n", lent);
        printf("signals: %s\n", seen == sent ? "all" : "lost");
        fflush(stdout);
        _exit(0);
    }
    for (int i = 0; i < 5 && kill(worker, SIGSTOP) == 0; i++) {
        if (waitpid(worker, &status, WUNTRACED) != worker || !WIFSTOPPED(status))
            break;
        stops++;
        kill(worker, SIGCONT);
    }
    if (stops == 5 || !WIFEXITED(status))
        waitpid(worker, &status, 0);
    printf("stopped and continued: %s\n", stops > 0 && WIFEXITED(status) ? "yes" : "no");
    return 0;
}

static void *lend_for_good(void *unused) {
    int port, fd = bound(&port);
    while (syscall(SYS_fsync, fd) == port)
        ;
    return unused;
}

static int killed(void) {
    int good = 0, status, ready[2];
    char byte;
    for (int i = 0; i < 50; i++) {
        pipe(ready);
        pid_t pid = fork();
        if (pid == 0) {
            pthread_t one;
            pthread_create(&one, NULL, lend_for_good, NULL);
            write(ready[1], "", 1);
            lend_for_good(NULL);
        }
        read(ready[0], &byte, 1);
        close(ready[0]);
        close(ready[1]);
        for (int wait = i * 3000; wait > 0; wait--)
            __asm__ volatile("");
        kill(pid, SIGKILL);
        good += waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    }
    printf("killed: %d\n", good);
    fflush(stdout);
    good = 0;
    for (int i = 0; i < 20; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            pthread_t one;
            for (int thread = 0; thread < 3; thread++)
                pthread_create(&one, NULL, lend_for_good, NULL);
            execl("/bin/true", "true", NULL);
            _exit(99);
        }
        good += waitpid(pid, &status, 0) == pid && status == 0;
    }
    printf("executed: %d\n", good);
    return 0;
}

int main(int count, char **arguments) {
    const char *what = count > 1 ? arguments[1] : "";
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!strcmp(what, "once"))
        return once();
    if (!strcmp(what, "storm"))
        return storm();
    if (!strcmp(what, "killed"))
        return killed();
    return 99;
}
