/* loopback POD_PORT FREE_PORT: loopback is the tree's own where one of its processes listens, else the pod's. */
#include "conformance.h"

static int listener(const char *host, int port, int type) {
    address at = endpoint(host, port);
    int fd = socket(family(&at), type, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, raw(&at), at.length) < 0) die("bind");
    if (type == SOCK_STREAM && listen(fd, 8) < 0) die("listen");
    return fd;
}

/* Whoever answers: the pod's echo service echoes; a listener of ours says "own". */
static void ask(const char *how, const char *host, int port) {
    address to = endpoint(host, port);
    int fd = stream_socket(&to);
    if (connect(fd, raw(&to), to.length) < 0) printf("%s, %s: %s\n", how, host, errno_name(errno));
    else {
        send_all(fd, "ping\n", 5);
        printf("%s, %s: %s, peer %s, local %s\n", how, host, receive_line(fd),
               strcmp(peer_of(fd), text(raw(&to), to.length, 1)) ? "other" : "as asked", local_of(fd));
    }
    close(fd);
}

static void serve_one(int listening) {
    int fd = accept(listening, NULL, NULL);
    if (fd < 0) die("accept");
    send_all(fd, "own\n", 4);
    receive_line(fd);
    close(fd);
}

int main(int argc, char **argv) {
    begin();
    if (argc < 3) return 98;
    int pod_port = atoi(argv[1]), port = atoi(argv[2]);
    const char *hosts[] = {"127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::"};
    for (int i = 0; i < 5; i++) ask("the pod's service", hosts[i], pod_port);
    ask("nobody's port", "127.0.0.1", port);

    int own = listener("127.0.0.1", port, SOCK_STREAM);
    pid_t server = fork();
    if (!server)
        for (;;) serve_one(own);
    close(own);
    ask("a child's listener", "127.0.0.1", port);
    ask("a child's listener, unspecified", "0.0.0.0", port);
    pid_t sibling = fork();
    if (!sibling) {
        ask("a sibling's listener", "127.0.0.1", port);
        _exit(0);
    }
    waitpid(sibling, NULL, 0);
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    ask("when the child is gone", "127.0.0.1", port);

    own = listener("::", port, SOCK_STREAM);
    server = fork();
    if (!server)
        for (;;) serve_one(own);
    close(own);
    ask("a dual-stack listener", "127.0.0.1", port);
    ask("a dual-stack listener", "::1", port);
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);

    int ephemeral = listener("127.0.0.1", 0, SOCK_STREAM);
    address at = {.length = sizeof at.storage};
    getsockname(ephemeral, raw(&at), &at.length);
    server = fork();
    if (!server) {
        serve_one(ephemeral);
        _exit(0);
    }
    ask("a listener on a port of the kernel's choice", "127.0.0.1", ntohs(((struct sockaddr_in *)&at.storage)->sin_port));
    waitpid(server, NULL, 0);
    close(ephemeral);

    int one = listener("127.0.0.1", 0, SOCK_DGRAM), two = socket(AF_INET, SOCK_DGRAM, 0);
    at.length = sizeof at.storage;
    getsockname(one, raw(&at), &at.length);
    char buffer[20] = {0};
    address from = {.length = sizeof from.storage};
    printf("own UDP: %ld", (long)sendto(two, "hello", 5, 0, raw(&at), at.length));
    printf(" %ld", ready(one, POLLIN, 5000) ? (long)recvfrom(one, buffer, 19, 0, raw(&from), &from.length) : -1L);
    printf(" %ld", (long)sendto(one, "back", 4, 0, raw(&from), from.length));
    printf(" %ld\n", ready(two, POLLIN, 5000) ? (long)recv(two, buffer, 19, 0) : -1L);

    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0) die("socketpair");
    printf("socketpair peer: %s\n", peer_of(pair[0]));
    return 0;
}
