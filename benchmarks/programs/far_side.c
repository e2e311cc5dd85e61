/* The service in the pod that all traffic goes to: far_side PORT
 *
 * TCP: the first byte of a connection says what it is for. 'u': reads until the end, then tells how many bytes came (64
 * bits, this machine's order). 'U': the same, and says so on standard output, too: "received NUMBER", or "cut NUMBER"
 * when the connection was broken off. 'd' and 32 bits: writes messages of that size until the peer leaves. 'e': sends
 * back what comes. UDP, same port: sends back what comes. Says "ready". */
#include "common.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define BUFFER (1u << 20)

static void sink(int connection, char *buffer, int aloud)
{
    uint64_t count = 0;
    ssize_t got;
    while ((got = recv(connection, buffer, BUFFER, 0)) > 0)
        count += (uint64_t)got;
    if (aloud)
        dprintf(1, "%s %llu\n", got == 0 ? "received" : "cut", (unsigned long long)count);
    if (got == 0)
        send(connection, &count, sizeof count, 0);
}

static void source(int connection, char *buffer)
{
    uint32_t size;
    if (recv(connection, &size, sizeof size, MSG_WAITALL) != (ssize_t)sizeof size || size > BUFFER)
        return;
    memset(buffer, 'd', size);
    while (send(connection, buffer, size, 0) > 0)
        ;
}

static void echo(int connection, char *buffer)
{
    ssize_t got;
    int at_once = 1;
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &at_once, sizeof at_once);
    while ((got = recv(connection, buffer, BUFFER, 0)) > 0)
        for (ssize_t sent = 0, now; sent < got; sent += now)
            if ((now = send(connection, buffer + sent, (size_t)(got - sent), 0)) <= 0)
                return;
}

static void *serve(void *argument)
{
    int connection = (int)(intptr_t)argument;
    /* Not touched beyond what is used: an idle connection costs little. */
    char *buffer = malloc(BUFFER), kind;
    if (buffer && recv(connection, &kind, 1, 0) == 1) {
        if (kind == 'u' || kind == 'U')
            sink(connection, buffer, kind == 'U');
        else if (kind == 'd')
            source(connection, buffer);
        else if (kind == 'e')
            echo(connection, buffer);
    }
    free(buffer);
    close(connection);
    return NULL;
}

static void *datagrams(void *argument)
{
    int server = (int)(intptr_t)argument;
    static char buffer[65536];
    for (;;) {
        struct sockaddr_in peer;
        socklen_t length = sizeof peer;
        ssize_t got = recvfrom(server, buffer, sizeof buffer, 0, (struct sockaddr *)&peer, &length);
        if (got >= 0)
            sendto(server, buffer, (size_t)got, 0, (struct sockaddr *)&peer, length);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        usage("far_side PORT");
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    int on = 1, room = 4 << 20;
    int udp = (int)checked("socket", socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    setsockopt(udp, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    checked("bind", bind(udp, (struct sockaddr *)&address, sizeof address));
    int listener = (int)checked("socket", socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    checked("bind", bind(listener, (struct sockaddr *)&address, sizeof address));
    checked("listen", listen(listener, 4096));
    pthread_t thread;
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 128 * 1024);
    pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
    if ((errno = pthread_create(&thread, &small, datagrams, (void *)(intptr_t)udp)))
        fail("pthread_create");
    checked("write", write(1, "ready\n", 6));
    for (;;) {
        int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (connection >= 0 && pthread_create(&thread, &small, serve, (void *)(intptr_t)connection))
            close(connection);
    }
}
