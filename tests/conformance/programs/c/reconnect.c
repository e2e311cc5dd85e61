/* reconnect HOST ECHO WHO CLOSED SOURCE_PORT: sockets that are connected more than once, or bound before. */
#include "conformance.h"

int main(int argc, char **argv) {
    begin();
    if (argc < 6) return 98;
    address echo = endpoint(argv[1], atoi(argv[2])), who = endpoint(argv[1], atoi(argv[3]));
    address closed = endpoint(argv[1], atoi(argv[4]));
    struct sockaddr unspecified = {.sa_family = AF_UNSPEC};

    int fd = stream_socket(&echo);
    printf("unspecified on a new socket: %s\n", outcome(connect(fd, &unspecified, sizeof unspecified)));
    printf("first: %s\n", outcome(connect(fd, raw(&echo), echo.length)));
    printf("echo: %s\n", echoes(fd));
    printf("while connected: %s\n", outcome(connect(fd, raw(&who), who.length)));
    printf("unspecified: %s\n", outcome(connect(fd, &unspecified, sizeof unspecified)));
    printf("peer after it: %s\n", peer_of(fd));
    printf("connect elsewhere: %s\n", outcome(connect(fd, raw(&who), who.length)));
    printf("peer: %s\n", peer_of(fd));
    printf("the service saw: %s\n", receive_line(fd));
    close(fd);

    fd = stream_socket(&echo);
    printf("refused: %s\n", outcome(connect(fd, raw(&closed), closed.length)));
    printf("the same socket, to a service: %s\n", outcome(connect(fd, raw(&echo), echo.length)));
    printf("echo: %s\n", echoes(fd));
    close(fd);

    fd = stream_socket(&echo);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    printf("non-blocking: %s\n", settled(fd, &echo, 10000));
    /* OK when the first call said EINPROGRESS, EISCONN when it said OK. */
    printf("asked again: %s\n", connect(fd, raw(&echo), echo.length) == 0 || errno == EISCONN ? "connected" : "no");
    close(fd);

    /* A source port of its own choice is what the far side sees, and what getsockname tells. */
    address source = endpoint(family(&echo) == AF_INET ? "0.0.0.0" : "::", atoi(argv[5]));
    fd = stream_socket(&echo);
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    printf("bind: %s\n", outcome(bind(fd, raw(&source), source.length)));
    printf("bound connect: %s\n", outcome(connect(fd, raw(&who), who.length)));
    printf("the service saw: %s\n", receive_line(fd));
    address got = {.length = sizeof got.storage};
    getsockname(fd, raw(&got), &got.length);
    printf("local: %s\n", text(raw(&got), got.length, 1));
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);

    fd = stream_socket(&echo);
    listen(fd, 1);
    printf("connect on a listener: %s\n", outcome(connect(fd, raw(&echo), echo.length)));
    close(fd);
    return 0;
}
