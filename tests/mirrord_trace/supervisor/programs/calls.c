/* Waits in held calls, gets signals, and says what came of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t seen;

static void see(int number, siginfo_t *info, void *context) {
    (void)number;
    (void)context;
    seen += info->si_code == SI_USER;
}

static void *wait_for_good(void *unused) {
    getpriority(PRIO_PROCESS, 77);
    return unused;
}

int main(int count, char **arguments) {
    char text[64] = "";
    const char *what = count > 1 ? arguments[1] : "";
    struct sigaction action = {.sa_sigaction = see, .sa_flags = SA_SIGINFO | (strcmp(what, "restart") ? 0 : SA_RESTART)};
    setvbuf(stdout, NULL, _IOLBF, 0);
    fprintf(stderr, "pid %d\n", getpid());
    if (!strcmp(what, "restart") || !strcmp(what, "interrupt")) {
        sigaction(SIGUSR1, &action, NULL);
        ssize_t length = read(0, text, sizeof text);
        printf("read: %s, %d signals\n", length < 0 ? strerror(errno) : text, seen);
    } else if (!strcmp(what, "held")) {
        wait_for_good(NULL);
    } else if (!strcmp(what, "held_thread")) {
        pthread_t one;
        sigaction(SIGUSR2, &action, NULL);
        pthread_create(&one, NULL, wait_for_good, NULL);
        read(0, text, 1);
        execl("/proc/self/exe", "calls", "executed", NULL);
    } else if (!strcmp(what, "executed")) {
        printf("executed\n");
    } else if (!strcmp(what, "stop_thread")) {
        /* A thread is held while another takes the signal that stops the process. */
        pid_t child = fork();
        if (child == 0) {
            pthread_t one;
            sigset_t all;
            sigfillset(&all);
            fprintf(stderr, "child %d\n", getpid());
            pthread_create(&one, NULL, wait_for_good, NULL);
            pause();
        }
        int status;
        waitpid(child, &status, WUNTRACED);
        printf("stopped: %d\n", WIFSTOPPED(status) ? WSTOPSIG(status) : 0);
        kill(child, SIGCONT);
        waitpid(child, &status, WCONTINUED);
        printf("continued: %d\n", WIFCONTINUED(status));
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        printf("killed: %d\n", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    } else if (!strcmp(what, "errors")) {
        for (int i = 2; i < count; i++) {
            errno = 0;
            int result = getpriority(PRIO_PROCESS, atoi(arguments[i]));
            printf("%s: %s\n", arguments[i], result == -1 && errno ? strerror(errno) : "made");
        }
    }
    return 0;
}
