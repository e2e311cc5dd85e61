/* passing HOST ECHO UDP_ECHO: sockets that change hands keep their connection: fork, exec, dup and SCM_RIGHTS. */
#include "conformance.h"

static void give(int channel, int fd) {
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 'f';
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof(int));
    if (sendmsg(channel, &message, 0) != 1) die("sendmsg SCM_RIGHTS");
}

static int take(int channel) {
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte;
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (recvmsg(channel, &message, 0) != 1 || !CMSG_FIRSTHDR(&message)) die("recvmsg SCM_RIGHTS");
    int fd;
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

static void finish(pid_t child) {
    int status;
    waitpid(child, &status, 0);
    if (status) printf("child ended with %d\n", status);
}

int main(int argc, char **argv) {
    begin();
    if (argc < 4) return 98;
    address echo = endpoint(argv[1], atoi(argv[2])), datagrams = endpoint(argv[1], atoi(argv[3]));
    if (argc == 5) { /* the program that main executes below */
        int fd = atoi(argv[4]);
        printf("after exec, peer: %s\n", peer_of(fd));
        printf("after exec, echo: %s\n", echoes(fd));
        return 0;
    }
    int channel[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, channel) < 0) die("socketpair");

    int fd = connected(argv[1], atoi(argv[2]));
    pid_t child = fork();
    if (!child) {
        int taken = take(channel[1]);
        printf("passed, peer: %s\n", peer_of(taken));
        printf("passed, echo: %s\n", echoes(taken));
        int own = connected(argv[1], atoi(argv[2]));
        give(channel[1], own);
        _exit(0);
    }
    give(channel[0], fd);
    finish(child);
    printf("still here, echo: %s\n", echoes(fd));
    int back = take(channel[0]);
    printf("passed back from a child that is gone, peer: %s\n", peer_of(back));
    printf("passed back from a child that is gone, echo: %s\n", echoes(back));
    close(back);

    /* A socket is made here and connected there. */
    int fresh = stream_socket(&echo);
    child = fork();
    if (!child) {
        printf("connected by the child: %s\n", outcome(connect(fresh, raw(&echo), echo.length)));
        _exit(0);
    }
    finish(child);
    printf("used by the parent, peer: %s\n", peer_of(fresh));
    printf("used by the parent, echo: %s\n", echoes(fresh));
    close(fresh);

    /* In flight: the only descriptor is inside a message while nobody holds the socket. */
    int travelling = connected(argv[1], atoi(argv[2]));
    give(channel[0], travelling);
    close(travelling);
    int filler = connected(argv[1], atoi(argv[2]));
    int arrived = take(channel[1]);
    printf("after a time in flight, peer: %s\n", peer_of(arrived));
    printf("after a time in flight, echo: %s\n", echoes(arrived));
    close(arrived);
    close(filler);

    fcntl(fd, F_SETFD, 0);
    child = fork();
    if (!child) {
        char number[16];
        snprintf(number, sizeof number, "%d", fd);
        execl("/proc/self/exe", argv[0], argv[1], argv[2], argv[3], number, NULL);
        die("exec");
    }
    finish(child);
    printf("after the child's exec, echo: %s\n", echoes(fd));
    close(fd);

    int udp = socket(family(&echo), SOCK_DGRAM, 0);
    child = fork();
    if (!child) {
        printf("UDP, connected by the child: %s\n", outcome(connect(udp, raw(&datagrams), datagrams.length)));
        _exit(0);
    }
    finish(child);
    send(udp, "datagram", 8, 0);
    char buffer[20] = {0};
    printf("UDP, used by the parent: %ld %s\n", (long)(ready(udp, POLLIN, 5000) ? recv(udp, buffer, 19, 0) : -1), buffer);
    printf("UDP, peer: %s\n", peer_of(udp));

    /* Numbers are used again: the new socket is no relative of the old one. */
    close(udp);
    int again = stream_socket(&echo);
    printf("same number again: %s, peer: %s\n", again == udp ? "yes" : "no", peer_of(again));
    return 0;
}
