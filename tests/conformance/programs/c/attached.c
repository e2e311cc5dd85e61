/* attached SILENT ECHO UDP_ECHO HOST: runs, with calls under way in every thread, until it reads a line.
 *
 * One thread connects to a port that hears nothing, one waits for a datagram, one makes one connection after another.
 * Says "ready PID" when the first two wait in their calls. What all of this came to is told at the end, and it is the
 * same however often the process was stopped meanwhile. */
#include "conformance.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>

static const char *host;
static int silent_port, echo_port, udp_port, datagrams;
static atomic_int is_over;

typedef struct {
    pthread_t thread;
    atomic_int tid;
    int count;
    const char *unexpected;
} worker;

static void tally(worker *of, const char *got, const char *expected) {
    of->count++;
    if (strcmp(got, expected)) of->unexpected = strdup(got);
}

static void *connects_to_silence(void *argument) {
    worker *self = argument;
    self->tid = gettid();
    pthread_setname_np(pthread_self(), "silence");
    while (!is_over) {
        address to = endpoint(host, silent_port);
        int fd = stream_socket(&to);
        tally(self, outcome(connect(fd, raw(&to), to.length)), "ETIMEDOUT");
        close(fd);
    }
    return NULL;
}

static void *waits_for_a_datagram(void *argument) {
    worker *self = argument;
    char data[100], shown[200], expected[200];
    address from = {.length = sizeof from.storage}, asked = endpoint(host, udp_port);
    self->tid = gettid();
    ssize_t size = recvfrom(datagrams, data, sizeof data, 0, raw(&from), &from.length);
    snprintf(shown, sizeof shown, "%.*s from %s", size < 0 ? 0 : (int)size, data, text(raw(&from), from.length, 1));
    snprintf(expected, sizeof expected, "ping from %s", text(raw(&asked), asked.length, 1));
    tally(self, size < 0 ? errno_name(errno) : shown, expected);
    return NULL;
}

static void round_trip(worker *into, const char *expected) {
    int fd = connected(host, echo_port);
    tally(into, peer_of(fd), expected);
    tally(into, echoes(fd), "echoed");
    struct linger reset = {.l_onoff = 1}; /* nothing stays in TIME_WAIT: ports would run out */
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(fd);
    fd = open("/etc/hostname", O_RDONLY);
    char name[100] = "";
    tally(into, read(fd, name, sizeof name - 1) > 0 ? name : errno_name(errno), "conformance-0\n");
    close(fd);
}

static void *connects_and_reads(void *argument) {
    worker *self = argument;
    address asked = endpoint(host, echo_port);
    const char *expected = strdup(text(raw(&asked), asked.length, 1));
    self->tid = gettid();
    while (!is_over) round_trip(self, expected);
    return NULL;
}

/* Returns when the thread sleeps in the call, as the kernel tells (proc_pid_syscall(5)). */
static void wait_until_in(worker *of, long call) {
    char path[64], line[200];
    long found = -1;
    while (found != call) {
        sched_yield();
        snprintf(path, sizeof path, "/proc/self/task/%d/syscall", of->tid);
        FILE *file = fopen(path, "r");
        if (file) {
            found = fgets(line, sizeof line, file) && line[0] != 'r' ? atol(line) : -1;
            fclose(file);
        }
    }
}

static void tell(const char *what, worker *of) {
    printf("%s: %s, %s\n", what, of->count ? "made" : "none", of->unexpected ? of->unexpected : "as expected");
}

int main(int count, char **arguments) {
    static worker silence, datagram, busy;
    if (count != 5) return 99;
    begin();
    silent_port = atoi(arguments[1]), echo_port = atoi(arguments[2]), udp_port = atoi(arguments[3]);
    host = arguments[4];
    address asked = endpoint(host, udp_port);
    datagrams = socket(family(&asked), SOCK_DGRAM | SOCK_CLOEXEC, 0);
    /* The first one binds the socket and opens its way to the pod. */
    char data[100];
    sendto(datagrams, "first", 5, 0, raw(&asked), asked.length);
    if (recv(datagrams, data, sizeof data, 0) != 5) die("first datagram");
    pthread_create(&silence.thread, NULL, connects_to_silence, &silence);
    pthread_create(&datagram.thread, NULL, waits_for_a_datagram, &datagram);
    pthread_create(&busy.thread, NULL, connects_and_reads, &busy);
    wait_until_in(&silence, SYS_connect);
    wait_until_in(&datagram, SYS_recvfrom);
    printf("ready %d\n", getpid());
    if (read(0, data, 1) < 0) die("read");
    is_over = 1;
    sendto(datagrams, "ping", 4, 0, raw(&asked), asked.length);
    pthread_join(datagram.thread, NULL);
    pthread_join(busy.thread, NULL);
    pthread_join(silence.thread, NULL);
    tell("connects to silence", &silence);
    tell("a datagram", &datagram);
    tell("connects and reads", &busy);
    return 7;
}
