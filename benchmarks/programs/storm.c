/* A build's worth of short processes: storm build DIRECTORY STEPS FILES AT_ONCE
 *
 * The shape of `go build`: one driver that keeps a few steps going at a time; each step looks for its FILES inputs in two
 * places (so half of the looks fail), reads them, and starts a helper, as a compiler starts an assembler. Every process
 * is executed anew and linked dynamically. 2 * STEPS + 1 processes in all. */
#include "common.h"
#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>

extern char **environ;

static pid_t start(char **argv)
{
    pid_t pid;
    if ((errno = posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, environ)))
        fail("posix_spawn");
    return pid;
}

static void await(pid_t pid)
{
    int status;
    checked("waitpid", waitpid(pid, &status, 0));
    if (status != 0) {
        fprintf(stderr, "a step failed: wait status %d\n", status);
        exit(1);
    }
}

static void read_inputs(const char *directory, int files)
{
    char name[4096], contents[4096];
    struct stat facts;
    for (int i = 0; i < files; i++) {
        snprintf(name, sizeof name, "%s/missing/input-%d", directory, i);
        if (stat(name, &facts) == 0)
            fail("found what is not there");
        snprintf(name, sizeof name, "%s/input-%d", directory, i);
        checked(name, stat(name, &facts));
        int descriptor = (int)checked(name, open(name, O_RDONLY | O_CLOEXEC));
        while (checked("read", read(descriptor, contents, sizeof contents)) > 0)
            ;
        close(descriptor);
    }
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "helper"))
        return 0;
    if (argc == 4 && !strcmp(argv[1], "step")) {
        read_inputs(argv[2], atoi(argv[3]));
        char *helper[] = {argv[0], "helper", NULL};
        await(start(helper));
        return 0;
    }
    if (argc != 6 || strcmp(argv[1], "build"))
        usage("storm build DIRECTORY STEPS FILES AT_ONCE");
    char *step[] = {argv[0], "step", argv[2], argv[4], NULL};
    int steps = atoi(argv[3]), at_once = atoi(argv[5]), running = 0;
    for (int i = 0; i < steps; i++) {
        if (running == at_once) {
            await(-1);
            running--;
        }
        start(step);
        running++;
    }
    while (running--)
        await(-1);
    return 0;
}
