/* file_execute ROOT: executes scripts that are there in every way, and what must be refused. */
#include "files.h"
#include <pthread.h>
#include <spawn.h>

extern char **environ;
static char *root;

static void ended(const char *what, pid_t child) {
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) < 0) die(what);
    if (WIFSIGNALED(status)) printf("%s: signal %d\n", what, WTERMSIG(status));
    else printf("%s: exit %d\n", what, WEXITSTATUS(status));
}

/* How it fails is told by the child. */
static void executed(const char *what, const char *path) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        char *arguments[] = {"name", "one", "two words", NULL};
        execve(path, arguments, environ);
        printf("%s\n", said(-1));
        _exit(100);
    }
    ended(what, child);
}

static void executed_at(const char *what, int directory, const char *path, int flags) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        char *arguments[] = {"name", "at", NULL};
        syscall(SYS_execveat, directory, path, arguments, environ, flags);
        printf("%s\n", said(-1));
        _exit(100);
    }
    ended(what, child);
}

static void *spawns(void *unused) {
    (void)unused;
    char *arguments[] = {"name", "from a thread", NULL};
    pid_t child;
    int failure = posix_spawn(&child, joined(root, "bin/hello"), NULL, NULL, arguments, environ);
    if (failure) printf("posix_spawn: %s\n", errno_name(failure));
    else ended("posix_spawn in a thread", child);
    return NULL;
}

int main(int argc, char **argv) {
    begin();
    if (argc < 2 || chdir(argv[1]) < 0) return 98;
    root = argv[1];
    executed("absolute", joined(root, "bin/hello"));
    executed("relative", "bin/hello");
    executed("with an argument", "bin/with-argument");
    executed("through a link", "links/hello");
    executed("through a directory's link", "links/parent/bin/hello");
    executed("no interpreter", "bin/no-interpreter");
    executed("not executable", "bin/not-executable");
    executed("no script", "bin/plain");
    executed("empty", "bin/empty");
    executed("a directory", "bin");
    executed("a fifo", "special/fifo");
    executed("nothing", "bin/nothing");
    executed("below a file", "bin/hello/x");
    executed("a loop", "links/loop-1");
    executed("a local program", "/bin/true");
    int directory = open("bin", O_RDONLY | O_DIRECTORY), path = open("bin", O_PATH | O_CLOEXEC);
    executed_at("execveat", directory, "hello", 0);
    executed_at("of a path that closes", path, "hello", 0);
    executed_at("not following", directory, "../links/hello", AT_SYMLINK_NOFOLLOW);
    int script = open("bin/hello", O_RDONLY), closing = open("bin/hello", O_RDONLY | O_CLOEXEC);
    executed_at("of a descriptor", script, "", AT_EMPTY_PATH);
    /* The interpreter could not open it any more (execveat(2), BUGS). */
    executed_at("of one that closes", closing, "", AT_EMPTY_PATH);
    fflush(stdout);
    pid_t child = vfork();
    if (child == 0) {
        execl("bin/hello", "name", "after vfork", NULL);
        _exit(100);
    }
    ended("vfork", child);
    pthread_t thread;
    pthread_create(&thread, NULL, spawns, NULL);
    pthread_join(thread, NULL);
    setenv("PATH", joined(root, "bin"), 1);
    fflush(stdout);
    char *arguments[] = {"hello", "found", NULL};
    execvp("hello", arguments);
    die("execvp");
}
