/* serving VISITOR VISITOR_PORT HOST PORT: a server at HOST in the pod, visited by a service there; what it sees of its
 * clients and of itself, in every way that servers ask for it. */
#include "conformance.h"

static int visitor;

static void ask(const char *protocol, const char *host, int port, const char *words) {
    char line[256];
    snprintf(line, sizeof line, "%s %s %d %s\n", protocol, host, port, words);
    send_all(visitor, line, strlen(line));
}

static int bound(const char *host, int port, int kind, int share, int only) {
    address at = endpoint(host, port);
    int fd = socket(family(&at), kind | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0) die("socket");
    if (kind == SOCK_STREAM) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (share) setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    if (only) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(fd, raw(&at), at.length) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int serving(const char *host, int port, int share, int only) {
    int fd = bound(host, port, SOCK_STREAM, share, only);
    if (fd < 0 || listen(fd, 64) < 0) die("bind or listen");
    return fd;
}

/* The name with its port. */
static const char *own_name(int fd) {
    address got = {.length = sizeof got.storage};
    if (getsockname(fd, raw(&got), &got.length) < 0) return errno_name(errno);
    return text(raw(&got), got.length, 1);
}

/* Whether an address is what the visitor says that its own is; only its host is told. */
static const char *client(const struct sockaddr *of, socklen_t length, const char *visit) {
    static char told[256];
    char host[64] = "?", shown[64];
    int port = -1, seen = ntohs(((const struct sockaddr_in *)of)->sin_port);
    sscanf(visit, "from %63s %d", host, &port);
    snprintf(shown, sizeof shown, "%s", text(of, length, 0));
    const char *address = strchr(shown, ' ') ? strchr(shown, ' ') + 1 : shown;
    if (!strncmp(address, "::ffff:", 7)) address += 7;
    snprintf(told, sizeof told, "%s, %s", shown, !strcmp(address, host) && port == seen ? "true" : visit);
    return told;
}

static void answer(int fd, const char *label, const char *words) {
    printf("%s, said: %s\n", label, receive_line(fd));
    send_all(fd, words, strlen(words));
    close(fd);
    printf("%s, heard: %s\n", label, receive_line(visitor));
}

/* One visit, accepted with an address. */
static void visited(int listener, const char *label, const char *host, int port, int flags) {
    ask("tcp", host, port, "hello");
    const char *visit = receive_line(visitor);
    if (fcntl(listener, F_GETFL) & O_NONBLOCK) ready(listener, POLLIN, 20000);
    address got = {.length = sizeof got.storage};
    int fd = accept4(listener, raw(&got), &got.length, flags);
    if (fd < 0) die("accept4");
    printf("%s: %s\n", label, client(raw(&got), got.length, visit));
    address peer = {.length = sizeof peer.storage};
    if (getpeername(fd, raw(&peer), &peer.length) < 0) die("getpeername");
    printf("%s, peer the same: %s\n", label,
           peer.length == got.length && !memcmp(&peer.storage, &got.storage, got.length) ? "yes" : "no");
    printf("%s, local: %s\n", label, own_name(fd));
    printf("%s, flags: %s %s\n", label, fcntl(fd, F_GETFL) & O_NONBLOCK ? "non-blocking" : "blocking",
           fcntl(fd, F_GETFD) & FD_CLOEXEC ? "close-on-exec" : "kept");
    fcntl(fd, F_SETFL, 0);
    answer(fd, label, "welcome");
}

static void accepted_unseen(int listener, const char *host, int port) {
    ask("tcp", host, port, "hello");
    const char *visit = receive_line(visitor);
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) die("accept");
    address peer = {.length = sizeof peer.storage};
    if (getpeername(fd, raw(&peer), &peer.length) < 0) die("getpeername");
    printf("accepted unseen: %s\n", client(raw(&peer), peer.length, visit));
    printf("accepted unseen, local: %s\n", own_name(fd));
    answer(fd, "accepted unseen", "you are seen");
}

static void wrong_accepts(int listener, const char *host, int port) {
    address got = {.length = sizeof got.storage};
    printf("unknown flags: %s\n", outcome(accept4(listener, raw(&got), &got.length, 0x40000000)));
    fcntl(listener, F_SETFL, O_NONBLOCK);
    printf("nobody there: %s\n", outcome(accept(listener, raw(&got), &got.length)));
    fcntl(listener, F_SETFL, 0);
    ask("tcp", host, port, "hello");
    receive_line(visitor);
    got.length = (socklen_t)-1;
    printf("negative length: %s\n", outcome(accept(listener, raw(&got), &got.length)));
    receive_line(visitor);
    memset(&got.storage, 0xee, sizeof got.storage);
    got.length = 4;
    ask("tcp", host, port, "hello");
    receive_line(visitor);
    int fd = accept(listener, raw(&got), &got.length);
    printf("four bytes of room: %s, length %d, fifth byte %s\n", outcome(fd), (int)got.length,
           ((unsigned char *)&got.storage)[4] == 0xee ? "untouched" : "written");
    close(fd);
    receive_line(visitor);
}

static void interrupted(int listener) {
    struct sigaction action = {.sa_handler = SIG_DFL};
    extern void on_alarm(int);
    action.sa_handler = on_alarm;
    sigaction(SIGALRM, &action, NULL);
    ualarm(200000, 0);
    address got = {.length = sizeof got.storage};
    printf("interrupted accept: %s\n", outcome(accept(listener, raw(&got), &got.length)));
    signal(SIGALRM, SIG_DFL);
    alarm(60);
}

void on_alarm(int number) { (void)number; }

static void refused_in_the_end(const char *label, const char *host, int port) {
    const char *said = "";
    for (int times = 0; times < 2000 && strcmp(said, "ECONNREFUSED"); times++) {
        ask("tcp", host, port, "anybody?");
        said = receive_line(visitor);
        if (!strncmp(said, "from", 4)) receive_line(visitor);
    }
    printf("%s: %s\n", label, said);
}

static void datagrams(const char *host, int port) {
    int fd = bound(host, port, SOCK_DGRAM, 0, 0);
    if (fd < 0) die("bind");
    printf("datagrams at: %s\n", own_name(fd));
    ask("udp", host, port, "hello");
    const char *visit = receive_line(visitor);
    char room[64];
    address got = {.length = sizeof got.storage};
    ssize_t size = recvfrom(fd, room, sizeof room, 0, raw(&got), &got.length);
    printf("datagram: %.*s from %s\n", (int)size, room, client(raw(&got), got.length, visit));
    printf("datagram answered: %s\n", outcome(sendto(fd, "welcome", 7, 0, raw(&got), got.length)));
    printf("datagram heard: %s\n", receive_line(visitor));
    close(fd);
}

int main(int argc, char **argv) {
    begin();
    if (argc < 5) return 98;
    const char *host = argv[3];
    int port = atoi(argv[4]);
    const char *anywhere = strchr(host, ':') ? "::" : "0.0.0.0";
    visitor = connected(argv[1], atoi(argv[2]));

    int listener = serving(anywhere, port, 0, 0);
    printf("listening at: %s\n", own_name(listener));
    visited(listener, "blocking", host, port, SOCK_CLOEXEC);
    fcntl(listener, F_SETFL, O_NONBLOCK);
    visited(listener, "non-blocking", host, port, SOCK_NONBLOCK);
    fcntl(listener, F_SETFL, 0);
    accepted_unseen(listener, host, port);
    wrong_accepts(listener, host, port);
    interrupted(listener);
    printf("the port again: %s\n", outcome(bound(anywhere, port, SOCK_STREAM, 0, 0)));
    pid_t child = fork();
    if (!child) {
        visited(listener, "in a child", host, port, 0);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    listen(listener, 8);
    visited(listener, "after another listen", host, port, 0);
    close(listener);
    refused_in_the_end("after it was closed", host, port);

    listener = serving(host, port, 0, 0);
    printf("bound to: %s\n", own_name(listener));
    visited(listener, "at one address", host, port, 0);
    shutdown(listener, SHUT_RD);
    refused_in_the_end("after it was shut down", host, port);
    close(listener);

    listener = serving("::", port + 1, 0, 0);
    visited(listener, "on a dual socket", host, port + 1, 0);
    close(listener);
    int first = serving(anywhere, port + 2, 1, 0), second = serving(anywhere, port + 2, 1, 0);
    close(first);
    visited(second, "what is left of a group", host, port + 2, 0);
    close(second);
    datagrams(host, port + 3);
    return 0;
}
