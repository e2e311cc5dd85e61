/* Tries to become a tracer in every way. The first argument, if any, is a process that nobody traces. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static void report(const char *what, long result) {
    printf("%s: %s\n", what, result < 0 ? strerrorname_np(errno) : "done");
    fflush(stdout);
}

int main(int count, char **arguments) {
    if (count > 1) {
        pid_t outsider = atoi(arguments[1]);
        report("seize an outsider", ptrace(PTRACE_SEIZE, outsider, 0, 0));
        return 0;
    }
    pid_t child = fork();
    if (child == 0) {
        report("traceme", ptrace(PTRACE_TRACEME, 0, 0, 0));
        return 0;
    }
    wait(NULL);
    child = fork();
    if (child == 0)
        for (;;)
            pause();
    report("attach", ptrace(PTRACE_ATTACH, child, 0, 0));
    report("seize", ptrace(PTRACE_SEIZE, child, 0, 0));
    report("cont, which is not ours", ptrace(PTRACE_CONT, child, 0, 0));
    kill(child, SIGKILL);
    wait(NULL);
    return 0;
}
