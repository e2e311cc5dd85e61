/* What system calls cost: calls FILE MILLISECONDS THREADS...
 *
 * For each number of threads and each call, all threads make that call for so long, at the same time. Prints lines
 * "CALL THREADS NANOSECONDS": the mean time of one call as a thread sees it. */
#include "common.h"
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define MOST_THREADS 64
#define AT_ONCE 16

static const char *path;
static uint64_t duration_ns;

/* Makes the call `count` times; returns the time that counts. */
typedef uint64_t measure(int count);

static uint64_t getppids(int count)
{
    uint64_t start = now_ns();
    while (count--)
        syscall(SYS_getppid);
    return now_ns() - start;
}

/* Without the closes that must follow. */
static uint64_t opens(int count)
{
    int descriptors[AT_ONCE];
    uint64_t start = now_ns();
    for (int i = 0; i < count; i++)
        descriptors[i] = (int)checked("openat", syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0));
    uint64_t spent = now_ns() - start;
    for (int i = 0; i < count; i++)
        close(descriptors[i]);
    return spent;
}

static uint64_t stats(int count)
{
    struct stat facts;
    uint64_t start = now_ns();
    while (count--)
        checked("newfstatat", syscall(SYS_newfstatat, AT_FDCWD, path, &facts, 0));
    return now_ns() - start;
}

/* To a listener of this thread's own, which is local for every tool; only connect itself is counted. Sockets are
 * closed with a reset, so that no port waits in TIME_WAIT. */
static uint64_t connects(int count)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    int listener = (int)checked("socket", socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    checked("bind", bind(listener, (struct sockaddr *)&address, length));
    checked("listen", listen(listener, 8));
    checked("getsockname", getsockname(listener, (struct sockaddr *)&address, &length));
    uint64_t spent = 0;
    while (count--) {
        int caller = (int)checked("socket", socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        setsockopt(caller, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        uint64_t start = now_ns();
        checked("connect", connect(caller, (struct sockaddr *)&address, sizeof address));
        spent += now_ns() - start;
        int called = (int)checked("accept", accept4(listener, NULL, NULL, SOCK_CLOEXEC));
        close(caller);
        close(called);
    }
    close(listener);
    return spent;
}

static const struct {
    const char *name;
    measure *measure;
    int at_once; /* between two looks at the clock */
} kinds[] = {
    {"getppid", getppids, 2000}, {"openat", opens, AT_ONCE}, {"stat", stats, AT_ONCE}, {"connect", connects, AT_ONCE}};

static pthread_barrier_t together;
static size_t kind;

/* Returns the mean time of one call, in nanoseconds, as a double in a malloc'ed place. */
static void *thread(void *unused)
{
    (void)unused;
    opens(1); /* strace stops a new thread at every call until its first intercepted one */
    kinds[kind].measure(kinds[kind].at_once); /* warm up */
    pthread_barrier_wait(&together);
    uint64_t began = now_ns(), spent = 0, calls = 0;
    do {
        spent += kinds[kind].measure(kinds[kind].at_once);
        calls += (uint64_t)kinds[kind].at_once;
    } while (now_ns() - began < duration_ns);
    double *mean = malloc(sizeof *mean);
    *mean = (double)spent / (double)calls;
    return mean;
}

int main(int argc, char **argv)
{
    if (argc < 4)
        usage("calls FILE MILLISECONDS THREADS...");
    path = argv[1];
    duration_ns = strtoull(argv[2], NULL, 10) * 1000000u;
    for (int i = 3; i < argc; i++) {
        int threads = atoi(argv[i]);
        if (threads < 1 || threads > MOST_THREADS)
            usage("1 to 64 threads");
        for (kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
            pthread_t ids[MOST_THREADS];
            double sum = 0;
            pthread_barrier_init(&together, NULL, (unsigned)threads);
            for (int n = 0; n < threads; n++)
                if ((errno = pthread_create(&ids[n], NULL, thread, NULL)))
                    fail("pthread_create");
            for (int n = 0; n < threads; n++) {
                void *mean;
                pthread_join(ids[n], &mean);
                sum += *(double *)mean;
                free(mean);
            }
            pthread_barrier_destroy(&together);
            printf("%s %d %.1f\n", kinds[kind].name, threads, sum / threads);
        }
    }
    return 0;
}
