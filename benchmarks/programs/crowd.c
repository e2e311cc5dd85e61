/* What a call costs in a crowd: crowd KIND COUNT MILLISECONDS FILE ADDRESS PORT
 *
 * KIND is threads, processes or connections: so many of them exist (this thread, this process included). Prints lines
 * "NAME NUMBER":
 *   openat    nanoseconds of an openat with a close, made by one while the others wait
 *   busy      such calls per second, all together, when all make them at once (threads, processes)
 *   connect   nanoseconds for each of the connections, opened one after the other
 *   echo      nanoseconds until 16 KiB have come back on one connection while the others are idle; each has done so before
 * then "ready", and ends when standard input does, so that memory can be measured in between. */
#include "dial.h"
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define MOST 4096
#define MESSAGE 16384

static const char *path;
static uint64_t duration_ns;

/* Between processes, too. */
static struct {
    atomic_int present, waiting, go;
    atomic_ullong calls;
} * shared;
static int gate[2];

static uint64_t opens_until(uint64_t end)
{
    uint64_t calls = 0;
    do {
        for (int i = 0; i < 8; i++)
            close((int)checked("openat", syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0)));
        calls += 8;
    } while (now_ns() < end);
    return calls;
}

/* Makes one call, waits, and when the gate opens makes calls for a while. */
static void member(void)
{
    char c;
    close((int)checked("openat", syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0)));
    atomic_fetch_add(&shared->present, 1);
    checked("read", read(gate[0], &c, 1));
    atomic_fetch_add(&shared->waiting, 1);
    while (!atomic_load(&shared->go))
        usleep(500);
    atomic_fetch_add(&shared->calls, opens_until(now_ns() + duration_ns));
    atomic_fetch_sub(&shared->waiting, 1);
    checked("read", read(gate[0], &c, 1)); /* until the end */
}

static void *thread(void *unused)
{
    (void)unused;
    member();
    return NULL;
}

static void start(int processes, int count)
{
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 * 1024);
    for (int i = 1; i < count; i++) {
        pthread_t id;
        if (!processes) {
            if ((errno = pthread_create(&id, &small, thread, NULL)))
                fail("pthread_create");
        } else if (checked("fork", fork()) == 0) {
            close(gate[1]);
            member();
            _exit(0);
        }
    }
    while (atomic_load(&shared->present) < count - 1)
        usleep(1000);
}

static void members(int processes, int count)
{
    checked("pipe", pipe2(gate, O_CLOEXEC));
    start(processes, count);
    uint64_t began = now_ns(), calls = opens_until(began + duration_ns);
    printf("openat %.1f\n", (double)(now_ns() - began) / (double)calls);
    for (int i = 1; i < count; i++)
        checked("write", write(gate[1], "", 1));
    while (atomic_load(&shared->waiting) < count - 1)
        usleep(1000);
    began = now_ns();
    atomic_store(&shared->go, 1);
    atomic_fetch_add(&shared->calls, opens_until(began + duration_ns));
    while (atomic_load(&shared->waiting) > 0)
        usleep(100);
    printf("busy %.1f\n", (double)atomic_load(&shared->calls) * 1e9 / (double)(now_ns() - began));
}

static void exchange(int connection)
{
    static char message[MESSAGE];
    send_all(connection, message, sizeof message);
    receive_all(connection, message, sizeof message);
}

static void connections(const struct far_side *to, int count)
{
    static int opened[MOST];
    uint64_t start = now_ns();
    for (int i = 0; i < count; i++)
        opened[i] = dial(to);
    printf("connect %.1f\n", (double)(now_ns() - start) / count);
    for (int i = 0; i < count; i++) {
        send_all(opened[i], "e", 1);
        exchange(opened[i]);
    }
    uint64_t samples[64];
    for (size_t i = 0; i < 64; i++) {
        start = now_ns();
        exchange(opened[0]);
        samples[i] = now_ns() - start;
    }
    printf("echo %.1f\n", (double)quantile(samples, 64, 0.5));
    uint64_t began = now_ns(), calls = opens_until(began + duration_ns);
    printf("openat %.1f\n", (double)(now_ns() - began) / (double)calls);
}

int main(int argc, char **argv)
{
    if (argc != 7)
        usage("crowd KIND COUNT MILLISECONDS FILE ADDRESS PORT");
    int count = atoi(argv[2]);
    if (count < 1 || count > MOST)
        usage("1 to 4096 of them");
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    duration_ns = strtoull(argv[3], NULL, 10) * 1000000u;
    path = argv[4];
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        fail("mmap");
    if (!strcmp(argv[1], "connections")) {
        struct far_side to = {.address = ipv4(argv[5], argv[6])};
        connections(&to, count);
    } else if (!strcmp(argv[1], "threads") || !strcmp(argv[1], "processes")) {
        members(argv[1][0] == 'p', count);
    } else {
        usage("threads, processes or connections");
    }
    printf("ready\n");
    fflush(stdout);
    char c;
    while (read(0, &c, 1) > 0)
        ;
    /* The gate closes with this process; the others see the end of it. */
    if (argv[1][0] == 'p') {
        close(gate[1]);
        while (wait(NULL) > 0)
            ;
    }
    return 0;
}
