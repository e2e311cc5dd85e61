/* endings HOST ECHO RESET HALF LEDGER: how a connection ends, from either side, reaches the other as it was sent. */
#include "conformance.h"

static const char *host;
static int ledger_port;

/* What the service saw of the connection that named itself so. */
static const char *seen(const char *name) {
    int fd = connected(host, ledger_port);
    send_all(fd, name, strlen(name));
    send_all(fd, "\n", 1);
    const char *answer = receive_line(fd);
    close(fd);
    return answer;
}

static void events(const char *when, int fd) {
    int got = ready(fd, POLLIN | POLLOUT | POLLRDHUP, 10000);
    printf("%s:%s%s%s%s%s\n", when, got & POLLIN ? " IN" : "", got & POLLOUT ? " OUT" : "",
           got & POLLRDHUP ? " RDHUP" : "", got & POLLHUP ? " HUP" : "", got & POLLERR ? " ERR" : "");
}

int main(int argc, char **argv) {
    begin();
    if (argc < 6) return 98;
    host = argv[1];
    int echo = atoi(argv[2]), reset = atoi(argv[3]), half = atoi(argv[4]);
    ledger_port = atoi(argv[5]);

    int fd = connected(host, echo);
    events("open", fd);
    send_all(fd, "one\ntwo\n", 8);
    shutdown(fd, SHUT_WR);
    printf("write after own shutdown: %s\n", outcome(send(fd, "x", 1, MSG_NOSIGNAL)));
    for (int i = 0; i < 4; i++) printf("received after own shutdown: %s\n", receive_line(fd));
    events("both ended", fd);
    close(fd);

    char name[64];
    fd = connected(host, half);
    snprintf(name, sizeof name, "%s", token());
    send_all(fd, name, strlen(name));
    send_all(fd, "\n", 1);
    printf("far side's banner: %s\n", receive_line(fd));
    ready(fd, POLLRDHUP, 10000);
    events("far side half closed", fd);
    printf("then: %s\n", receive_line(fd));
    char block[3000] = {0};
    for (int i = 0; i < 40; i++) send_all(fd, block, sizeof block);
    printf("peer while half closed: %s\n", peer_of(fd));
    close(fd);
    printf("the far side received after its own shutdown: %s\n", seen(name));

    fd = connected(host, half);
    snprintf(name, sizeof name, "%s", token());
    send_all(fd, name, strlen(name));
    send_all(fd, "\n", 1);
    receive_line(fd);
    receive_line(fd); /* its end: the far side is done with its own half */
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
    printf("the far side of a reset: %s\n", seen(name));

    fd = connected(host, reset);
    send_all(fd, "reset\n", 6);
    ready(fd, POLLHUP, 10000);
    events("after the far side's reset", fd);
    for (int i = 0; i < 2; i++) printf("SO_ERROR: %s\n", errno_name(so_error(fd)));
    printf("read: %s\n", receive_line(fd));
    printf("write: %s\n", outcome(send(fd, "x", 1, MSG_NOSIGNAL)));
    printf("peer: %s\n", peer_of(fd));
    close(fd);

    fd = connected(host, reset);
    send_all(fd, "data\n", 5);
    printf("before the reset: %s\n", receive_line(fd));
    char one;
    printf("blocked read: %s\n", outcome(recv(fd, &one, 1, 0)));
    printf("next read: %s\n", outcome(recv(fd, &one, 1, 0)));
    close(fd);
    return 0;
}
