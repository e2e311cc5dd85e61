/* How long a command takes: stopwatch FILE COMMAND [ARGUMENT]...
 *
 * Writes the nanoseconds from before the fork to after the wait into FILE. Exits as the command does. */
#include "common.h"
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

int main(int argc, char **argv)
{
    if (argc < 3)
        usage("stopwatch FILE COMMAND [ARGUMENT]...");
    pid_t pid;
    int status;
    uint64_t start = now_ns();
    if ((errno = posix_spawnp(&pid, argv[2], NULL, NULL, argv + 2, environ)))
        fail(argv[2]);
    checked("waitpid", waitpid(pid, &status, 0));
    uint64_t taken = now_ns() - start;
    FILE *file = fopen(argv[1], "w");
    if (!file)
        fail(argv[1]);
    fprintf(file, "%llu\n", (unsigned long long)taken);
    if (fclose(file))
        fail(argv[1]);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
