/* Traffic between here and the far side: traffic ADDRESS PORT PROXY_PORT MILLISECONDS CELL...
 *
 * PROXY_PORT: of a SOCKS server on 127.0.0.1, 0 for none. Cells, in order:
 *   connect:COUNT            the median time of a connect, nanoseconds
 *   answer:COUNT             the median time of a connect and one byte there and back on it, nanoseconds
 *   rtt:SIZE                 the median time until so many bytes have come back, nanoseconds
 *   up:STREAMS:SIZE          bytes per second to the far side, sent in messages of that size; what counts has arrived
 *   down:STREAMS:SIZE        bytes per second from there
 *   paced:RATE:SIZE          bytes per second to the far side, which says aloud how much came; sent in messages of that
 *                            size, and no faster than so many bytes per second
 *   udp:SIZE:WINDOW          echoed datagrams per second with so many under way, on a connected socket
 *   udpto:SIZE:WINDOW        the same on an unconnected socket, whose calls name the peer
 * Prints lines "CELL NUMBER". */
#include "dial.h"
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>

#define MOST_STREAMS 256
#define MOST_SAMPLES 100000
#define BUFFER (1u << 20)

static struct far_side far;
static uint64_t duration_ns, samples[MOST_SAMPLES];

static int dial_for(char purpose)
{
    int connection = dial(&far);
    send_all(connection, &purpose, 1);
    return connection;
}

static double connects(size_t count, int until_answer)
{
    if (count > MOST_SAMPLES)
        usage("so many connects are not counted");
    for (size_t i = 0; i < count; i++) {
        uint64_t start = now_ns();
        int connection = dial(&far);
        char c = 0;
        if (until_answer) {
            send_all(connection, "ea", 2);
            receive_all(connection, &c, 1);
        }
        samples[i] = now_ns() - start;
        close(connection);
    }
    return (double)quantile(samples, count, 0.5);
}

static double round_trips(size_t size)
{
    char *buffer = calloc(1, BUFFER);
    int connection = dial_for('e'), at_once = 1;
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &at_once, sizeof at_once);
    size_t count = 0;
    for (uint64_t began = now_ns(), start = began; count < MOST_SAMPLES && start - began < duration_ns; start = now_ns()) {
        send_all(connection, buffer, size);
        receive_all(connection, buffer, size);
        samples[count++] = now_ns() - start;
    }
    close(connection);
    free(buffer);
    return (double)quantile(samples, count, 0.5);
}

static struct {
    pthread_barrier_t together;
    size_t size;
    uint64_t began, ended, bytes;
    pthread_mutex_t sum;
} flow = {.sum = PTHREAD_MUTEX_INITIALIZER};

static void begin(void)
{
    if (pthread_barrier_wait(&flow.together) == PTHREAD_BARRIER_SERIAL_THREAD)
        flow.began = now_ns();
    pthread_barrier_wait(&flow.together);
}

static void finish(uint64_t bytes, uint64_t ended)
{
    pthread_mutex_lock(&flow.sum);
    flow.bytes += bytes;
    if (ended > flow.ended)
        flow.ended = ended;
    pthread_mutex_unlock(&flow.sum);
}

static void *upward(void *unused)
{
    (void)unused;
    char *buffer = calloc(1, BUFFER);
    int connection = dial_for('u');
    uint64_t arrived;
    begin();
    do
        send_all(connection, buffer, flow.size);
    while (now_ns() - flow.began < duration_ns);
    checked("shutdown", shutdown(connection, SHUT_WR));
    receive_all(connection, &arrived, sizeof arrived);
    finish(arrived, now_ns());
    close(connection);
    free(buffer);
    return NULL;
}

static double paced(uint64_t rate, size_t size)
{
    char *buffer = calloc(1, BUFFER);
    int connection = dial_for('U');
    uint64_t arrived, sent = 0, began = now_ns(), due;
    if (size < 1 || size > BUFFER || rate < 1)
        usage("messages of 1 B to 1 MiB");
    do {
        send_all(connection, buffer, size);
        sent += size;
        due = began + sent * 1000 / rate * 1000000 + sent * 1000 % rate * 1000000 / rate;
        struct timespec until = {.tv_sec = (time_t)(due / 1000000000u), .tv_nsec = (long)(due % 1000000000u)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    } while (now_ns() - began < duration_ns);
    checked("shutdown", shutdown(connection, SHUT_WR));
    receive_all(connection, &arrived, sizeof arrived);
    double taken = (double)(now_ns() - began);
    close(connection);
    free(buffer);
    return (double)arrived * 1e9 / taken;
}

static void *downward(void *unused)
{
    (void)unused;
    char *buffer = calloc(1, BUFFER);
    int connection = dial_for('d');
    uint32_t size = (uint32_t)flow.size;
    uint64_t arrived = 0;
    send_all(connection, &size, sizeof size);
    receive_all(connection, buffer, 1);
    begin();
    do
        arrived += (uint64_t)checked("recv", recv(connection, buffer, BUFFER, 0));
    while (now_ns() - flow.began < duration_ns);
    finish(arrived, now_ns());
    close(connection);
    free(buffer);
    return NULL;
}

static double throughput(void *direction(void *), int streams, size_t size)
{
    pthread_t threads[MOST_STREAMS];
    if (streams < 1 || streams > MOST_STREAMS || size < 1 || size > BUFFER)
        usage("1 to 256 streams, messages of 1 B to 1 MiB");
    flow.size = size;
    flow.bytes = flow.ended = 0;
    pthread_barrier_init(&flow.together, NULL, (unsigned)streams);
    for (int i = 0; i < streams; i++)
        if ((errno = pthread_create(&threads[i], NULL, direction, NULL)))
            fail("pthread_create");
    for (int i = 0; i < streams; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&flow.together);
    return (double)flow.bytes * 1e9 / (double)(flow.ended - flow.began);
}

/* A window of datagrams is kept under way; when none comes for 20 ms, they are lost and a new window goes out. */
static double datagrams(size_t size, int window, int connected)
{
    static char buffer[65536];
    int caller = (int)checked("socket", socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)), under_way = 0;
    struct sockaddr *address = connected ? NULL : (struct sockaddr *)&far.address;
    socklen_t length = connected ? 0 : sizeof far.address;
    if (size < 1 || size > sizeof buffer)
        usage("a datagram has 1 to 65507 bytes");
    if (connected)
        checked("connect", connect(caller, (struct sockaddr *)&far.address, sizeof far.address));
    uint64_t echoed = 0, began = now_ns();
    do {
        for (; under_way < window; under_way++)
            checked("sendto", sendto(caller, buffer, size, 0, address, length));
        struct pollfd readable = {.fd = caller, .events = POLLIN};
        if (checked("poll", poll(&readable, 1, 20)) == 0) {
            under_way = 0;
            continue;
        }
        struct sockaddr_in from;
        socklen_t room = sizeof from;
        checked("recvfrom", recvfrom(caller, buffer, sizeof buffer, 0, connected ? NULL : (struct sockaddr *)&from,
                                     connected ? NULL : &room));
        echoed++;
        under_way -= under_way > 0;
    } while (now_ns() - began < duration_ns);
    double rate = (double)echoed * 1e9 / (double)(now_ns() - began);
    close(caller);
    return rate;
}

static double measure(const char *cell)
{
    size_t first, second;
    if (sscanf(cell, "connect:%zu", &first) == 1)
        return connects(first, 0);
    if (sscanf(cell, "answer:%zu", &first) == 1)
        return connects(first, 1);
    if (sscanf(cell, "rtt:%zu", &first) == 1)
        return round_trips(first);
    if (sscanf(cell, "up:%zu:%zu", &first, &second) == 2)
        return throughput(upward, (int)first, second);
    if (sscanf(cell, "down:%zu:%zu", &first, &second) == 2)
        return throughput(downward, (int)first, second);
    if (sscanf(cell, "paced:%zu:%zu", &first, &second) == 2)
        return paced(first, second);
    if (sscanf(cell, "udp:%zu:%zu", &first, &second) == 2)
        return datagrams(first, (int)second, 1);
    if (sscanf(cell, "udpto:%zu:%zu", &first, &second) == 2)
        return datagrams(first, (int)second, 0);
    usage("there is no such cell");
}

int main(int argc, char **argv)
{
    if (argc < 6)
        usage("traffic ADDRESS PORT PROXY_PORT MILLISECONDS CELL...");
    far.address = ipv4(argv[1], argv[2]);
    if (atoi(argv[3]))
        far.proxy = ipv4("127.0.0.1", argv[3]);
    duration_ns = strtoull(argv[4], NULL, 10) * 1000000u;
    for (int i = 5; i < argc; i++) {
        printf("%s %.1f\n", argv[i], measure(argv[i]));
        fflush(stdout);
    }
    return 0;
}
