/* Runs in the foreground of a terminal and says which signals it gets. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int count, char **arguments) {
    sigset_t all;
    int number;
    sigemptyset(&all);
    sigaddset(&all, SIGWINCH);
    sigaddset(&all, SIGCONT);
    sigaddset(&all, SIGUSR1);
    sigaddset(&all, SIGUSR2);
    if (count > 1 && !strcmp(arguments[1], "catches")) {
        sigaddset(&all, SIGINT);
        sigaddset(&all, SIGTERM);
    }
    sigprocmask(SIG_BLOCK, &all, NULL);
    dprintf(1, "runs %d\n", getpid());
    while (sigwait(&all, &number) == 0) {
        dprintf(1, "got %s\n", sigabbrev_np(number));
        if (number == SIGUSR1)
            kill(0, SIGUSR2);
        if (number == SIGINT)
            return 7;
        if (number == SIGTERM)
            return 8;
    }
    return 1;
}
