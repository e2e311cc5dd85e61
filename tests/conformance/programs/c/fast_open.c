/* fast_open HOST ECHO CLOSED: data that travels with the connect. */
#include "conformance.h"

int main(int argc, char **argv) {
    begin();
    if (argc < 4) return 98;
    address echo = endpoint(argv[1], atoi(argv[2])), closed = endpoint(argv[1], atoi(argv[3]));
    for (int round = 1; round <= 2; round++) {
        int fd = stream_socket(&echo);
        printf("sendto: %ld\n", (long)sendto(fd, "early\n", 6, MSG_FASTOPEN, raw(&echo), echo.length));
        printf("answer: %s\n", receive_line(fd));
        printf("peer: %s\n", peer_of(fd));
        close(fd);
    }
    int fd = stream_socket(&echo);
    struct iovec parts[] = {{.iov_base = "in ", .iov_len = 3}, {.iov_base = "parts\n", .iov_len = 6}};
    struct msghdr message = {.msg_name = raw(&echo), .msg_namelen = echo.length, .msg_iov = parts, .msg_iovlen = 2};
    printf("sendmsg: %ld\n", (long)sendmsg(fd, &message, MSG_FASTOPEN));
    printf("answer: %s\n", receive_line(fd));
    close(fd);

    fd = stream_socket(&echo);
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof on);
    printf("option, connect: %s\n", outcome(connect(fd, raw(&echo), echo.length)));
    printf("option, echo: %s\n", echoes(fd));
    printf("option, peer: %s\n", peer_of(fd));
    close(fd);

    fd = stream_socket(&closed);
    printf("refused: %s\n", outcome(sendto(fd, "early\n", 6, MSG_FASTOPEN | MSG_NOSIGNAL, raw(&closed), closed.length)));
    close(fd);
    return 0;
}
