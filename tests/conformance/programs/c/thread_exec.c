/* thread_exec HOST ECHO: a thread that is not the first one executes a program while others run and block. */
#include "conformance.h"
#include <pthread.h>
#include <sys/syscall.h>

static char **arguments;

static void *spin(void *unused) {
    for (;;) sched_yield();
    return unused;
}

static void *block(void *unused) {
    for (;;) pause();
    return unused;
}

static void *execute(void *unused) {
    (void)unused;
    execv("/proc/self/exe", arguments);
    die("exec");
    return NULL;
}

int main(int argc, char **argv) {
    begin();
    if (argc < 3) return 98;
    int rounds = argc > 3 ? atoi(argv[3]) : 0;
    printf("round %d, the only thread is the leader: %s\n", rounds, getpid() == syscall(SYS_gettid) ? "yes" : "no");
    if (argc > 4) {
        int inherited = atoi(argv[4]);
        printf("inherited: %s, %s\n", peer_of(inherited), echoes(inherited));
        close(inherited);
    }
    int fd = connected(argv[1], atoi(argv[2]));
    printf("echo: %s\n", echoes(fd));
    fcntl(fd, F_SETFD, 0);
    if (rounds == 5) return 7;
    char round[16], number[16];
    snprintf(round, sizeof round, "%d", rounds + 1);
    snprintf(number, sizeof number, "%d", fd);
    arguments = (char *[]){argv[0], argv[1], argv[2], round, number, NULL};
    pthread_t thread;
    for (int i = 0; i < 4; i++) pthread_create(&thread, NULL, i % 2 ? spin : block, NULL);
    pthread_create(&thread, NULL, execute, NULL);
    pthread_join(thread, NULL);
    return 97;
}
