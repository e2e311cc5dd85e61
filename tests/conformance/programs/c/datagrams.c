/* datagrams HOST ECHO ELSEWHERE CLOSED: UDP in every way that programs use it. */
#include "conformance.h"

static address echo, elsewhere, closed;

static int datagram_socket(void) {
    int fd = socket(family(&echo), SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    struct timeval limit = {.tv_sec = 5};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return fd;
}

/* Receives one datagram and prints what, from whom and with which flags. */
static void receive(const char *when, int fd, int flags, size_t room) {
    char buffer[70000];
    address from = {.length = sizeof from.storage};
    ssize_t size = recvfrom(fd, buffer, room, flags, raw(&from), &from.length);
    if (size < 0) printf("%s: %s\n", when, errno_name(errno));
    else {
        size_t kept = (size_t)size < room ? (size_t)size : room;
        printf("%s: %zd bytes \"%.*s\" from %s\n", when, size, kept > 40 ? 40 : (int)kept, buffer,
               text(raw(&from), from.length, 1));
    }
}

static void connected_socket(void) {
    int fd = datagram_socket();
    char buffer[100];
    printf("connect: %s\n", outcome(connect(fd, raw(&echo), echo.length)));
    printf("peer: %s\n", peer_of(fd));
    printf("local: %s\n", local_of(fd));
    printf("send: %ld\n", (long)send(fd, "one", 3, 0));
    receive("recvfrom", fd, 0, 100);
    printf("write: %ld\n", (long)write(fd, "two", 3));
    printf("read: %ld\n", (long)read(fd, buffer, sizeof buffer));
    printf("empty send: %ld\n", (long)send(fd, "", 0, 0));
    receive("empty receive", fd, 0, 100);
    printf("send to the same: %ld\n", (long)sendto(fd, "three", 5, 0, raw(&echo), echo.length));
    receive("answer", fd, 0, 100);
    printf("send elsewhere: %ld\n", (long)sendto(fd, "four", 4, 0, raw(&elsewhere), elsewhere.length));
    printf("answer of a stranger in 0.2 s: %s\n", ready(fd, POLLIN, 200) ? "some" : "none");
    printf("connect elsewhere: %s\n", outcome(connect(fd, raw(&elsewhere), elsewhere.length)));
    send(fd, "five", 4, 0);
    printf("answer from another port in 0.2 s: %s\n", ready(fd, POLLIN, 200) ? "some" : "none");
    struct sockaddr unspecified = {.sa_family = AF_UNSPEC};
    printf("unspecified: %s\n", outcome(connect(fd, &unspecified, sizeof unspecified)));
    printf("peer: %s\n", peer_of(fd));
    printf("send: %s\n", outcome(send(fd, "six", 3, 0)));
    printf("sendto: %ld\n", (long)sendto(fd, "seven", 5, 0, raw(&echo), echo.length));
    receive("receive", fd, 0, 100);
    close(fd);
}

static void refusals(void) {
    int fd = datagram_socket();
    connect(fd, raw(&closed), closed.length);
    printf("send to a closed port: %s\n", outcome(send(fd, "x", 1, 0)));
    int events = ready(fd, POLLIN, 5000);
    printf("then poll: %s\n", events & POLLERR ? "error" : "no error");
    for (int i = 0; i < 2; i++) printf("SO_ERROR: %s\n", errno_name(so_error(fd)));
    send(fd, "x", 1, 0);
    receive("receive", fd, 0, 100);
    send(fd, "x", 1, 0);
    ready(fd, POLLIN, 5000);
    printf("second send: %s\n", outcome(send(fd, "y", 1, 0)));
    close(fd);
    fd = datagram_socket();
    sendto(fd, "x", 1, 0, raw(&closed), closed.length);
    sendto(fd, "y", 1, 0, raw(&echo), echo.length);
    receive("unconnected, after a refusal", fd, 0, 100);
    close(fd);
}

static void unconnected_socket(void) {
    int fd = datagram_socket();
    printf("local before: %s\n", local_of(fd));
    sendto(fd, "to echo", 7, 0, raw(&echo), echo.length);
    receive("from echo", fd, 0, 100);
    sendto(fd, "to elsewhere", 12, 0, raw(&elsewhere), elsewhere.length);
    receive("from elsewhere", fd, 0, 100);
    sendto(fd, "who", 3, 0, raw(&echo), echo.length);
    receive("as the service saw us", fd, 0, 100);
    sendto(fd, "0123456789", 10, 0, raw(&echo), echo.length);
    receive("peek", fd, MSG_PEEK, 4);
    receive("peek with MSG_TRUNC", fd, MSG_PEEK | MSG_TRUNC, 4);
    receive("take", fd, 0, 4);
    receive("next, without waiting", fd, MSG_DONTWAIT, 4);
    sendto(fd, "0123456789", 10, 0, raw(&echo), echo.length);
    receive("MSG_TRUNC", fd, MSG_TRUNC, 4);

    address got = {.length = 6};
    char buffer[100];
    memset(&got.storage, 0xee, sizeof got.storage);
    sendto(fd, "x", 1, 0, raw(&echo), echo.length);
    long size = recvfrom(fd, buffer, 100, 0, raw(&got), &got.length);
    printf("source in six bytes: %ld, length told %s, seventh byte %s\n", size,
           got.length == echo.length ? "right" : "wrong",
           ((unsigned char *)&got.storage)[6] == 0xee ? "untouched" : "written");
    sendto(fd, "x", 1, 0, raw(&echo), echo.length);
    printf("no source wanted: %ld\n", (long)recvfrom(fd, buffer, 100, 0, NULL, NULL));
    static char large[9000];
    memset(large, 'L', sizeof large);
    sendto(fd, large, sizeof large, 0, raw(&echo), echo.length);
    receive("large", fd, 0, 70000);
    close(fd);
}

static void messages(void) {
    int fd = datagram_socket(), on = 1, six = family(&echo) == AF_INET6;
    setsockopt(fd, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_RECVHOPLIMIT : IP_RECVTTL, &on, sizeof on);
    struct iovec parts[] = {{.iov_base = "in ", .iov_len = 3}, {.iov_base = "parts", .iov_len = 5}};
    struct msghdr out = {.msg_name = raw(&echo), .msg_namelen = echo.length, .msg_iov = parts, .msg_iovlen = 2};
    printf("sendmsg: %ld\n", (long)sendmsg(fd, &out, 0));
    char one[4], two[100], control[200];
    address from;
    struct iovec into[] = {{.iov_base = one, .iov_len = 4}, {.iov_base = two, .iov_len = 100}};
    struct msghdr in = {.msg_name = raw(&from), .msg_namelen = sizeof from.storage, .msg_iov = into, .msg_iovlen = 2,
                        .msg_control = control, .msg_controllen = sizeof control};
    long size = recvmsg(fd, &in, 0);
    printf("recvmsg: %ld \"%.4s\" \"%.4s\" from %s, flags %#x\n", size, one, two,
           text(raw(&from), in.msg_namelen, 1), in.msg_flags);
    for (struct cmsghdr *each = CMSG_FIRSTHDR(&in); each; each = CMSG_NXTHDR(&in, each))
        printf("control: level %d type %d length %zu\n", each->cmsg_level, each->cmsg_type, (size_t)each->cmsg_len);

    setsockopt(fd, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_RECVPKTINFO : IP_PKTINFO, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMP, &on, sizeof on);
    sendmsg(fd, &out, 0);
    in.msg_namelen = sizeof from.storage;
    in.msg_controllen = sizeof control;
    recvmsg(fd, &in, 0);
    for (struct cmsghdr *each = CMSG_FIRSTHDR(&in); each; each = CMSG_NXTHDR(&in, each))
        printf("more control: level %d type %d length %zu\n", each->cmsg_level, each->cmsg_type,
               (size_t)each->cmsg_len);
    sendmsg(fd, &out, 0);
    in.msg_namelen = 0;
    in.msg_name = NULL;
    in.msg_controllen = 4;
    into[1].iov_len = 1;
    size = recvmsg(fd, &in, 0);
    printf("recvmsg into too little: %ld, flags %#x\n", size, in.msg_flags);
    into[1].iov_len = 100;

    char texts[3][8] = {"first", "second", "third"};
    struct iovec vectors[3];
    struct mmsghdr many[4];
    memset(many, 0, sizeof many);
    for (int i = 0; i < 3; i++) {
        vectors[i] = (struct iovec){.iov_base = texts[i], .iov_len = strlen(texts[i])};
        many[i].msg_hdr.msg_iov = &vectors[i];
        many[i].msg_hdr.msg_iovlen = 1;
        many[i].msg_hdr.msg_name = raw(i == 1 ? &elsewhere : &echo);
        many[i].msg_hdr.msg_namelen = echo.length;
    }
    printf("sendmmsg: %d", sendmmsg(fd, many, 3, 0));
    for (int i = 0; i < 3; i++) printf(" %u", many[i].msg_len);
    printf("\n");
    int received = 0;
    char rooms[4][16];
    address sources[4];
    struct iovec room_vectors[4];
    while (received < 3) {
        memset(many, 0, sizeof many);
        for (int i = 0; i < 4; i++) {
            room_vectors[i] = (struct iovec){.iov_base = rooms[i], .iov_len = 16};
            many[i].msg_hdr.msg_iov = &room_vectors[i];
            many[i].msg_hdr.msg_iovlen = 1;
            many[i].msg_hdr.msg_name = raw(&sources[i]);
            many[i].msg_hdr.msg_namelen = sizeof sources[i].storage;
        }
        struct timespec limit = {.tv_sec = 5};
        int count = recvmmsg(fd, many, 4, MSG_WAITFORONE, &limit);
        if (count <= 0) die("recvmmsg");
        for (int i = 0; i < count; i++) {
            /* The two services race: what came is told in the order of what was sent, below. */
            int which = many[i].msg_len == 5 ? (rooms[i][0] == 'f' ? 0 : 2) : 1;
            snprintf(texts[which], 8, "%.*s", many[i].msg_len > 7 ? 7 : (int)many[i].msg_len, rooms[i]);
            printf("%s", "");
            static char lines[3][200];
            snprintf(lines[which], 200, "recvmmsg: %.7s from %s", texts[which],
                     text(raw(&sources[i]), many[i].msg_hdr.msg_namelen, 1));
            received++;
            if (received == 3)
                for (int line = 0; line < 3; line++) puts(lines[line]);
        }
    }
    connect(fd, raw(&echo), echo.length);
    for (int i = 0; i < 3; i++) {
        many[i].msg_hdr.msg_name = NULL;
        many[i].msg_hdr.msg_namelen = 0;
    }
    printf("sendmmsg, connected: %d\n", sendmmsg(fd, many, 3, 0));
    for (int i = 0; i < 3; i++) ready(fd, POLLIN, 5000);
    close(fd);
}

/* An IPv6 socket that speaks IPv4, as Go's are when they are not bound to an address. */
static void mapped(const char *host, int port) {
    char text_of[64];
    snprintf(text_of, sizeof text_of, "::ffff:%s", host);
    address to = endpoint(text_of, port), plain = echo;
    int fd = socket(AF_INET6, SOCK_DGRAM, 0), off = 0;
    struct timeval limit = {.tv_sec = 5};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    printf("mapped: %s\n", outcome(sendto(fd, "mapped", 6, 0, raw(&to), to.length)));
    receive("mapped answer", fd, 0, 100);
    printf("IPv4 address on an IPv6 socket: %s\n", outcome(sendto(fd, "plain", 5, 0, raw(&plain), plain.length)));
    receive("its answer", fd, 0, 100);
    printf("mapped connect: %s\n", outcome(connect(fd, raw(&to), to.length)));
    printf("mapped peer: %s\n", peer_of(fd));
    printf("mapped local: %s\n", local_of(fd));
    send(fd, "connected", 9, 0);
    receive("mapped, connected", fd, 0, 100);
    close(fd);
}

/* How resolvers ask which source address a destination would get: nothing is sent. */
static void probe(const char *host) {
    address nowhere = endpoint(host, 0);
    int fd = datagram_socket();
    printf("connect to port 0: %s\n", outcome(connect(fd, raw(&nowhere), nowhere.length)));
    printf("its peer: %s\n", peer_of(fd));
    printf("its local address: %s\n", local_of(fd));
    close(fd);
}

int main(int argc, char **argv) {
    begin();
    if (argc < 5) return 98;
    echo = endpoint(argv[1], atoi(argv[2]));
    elsewhere = endpoint(argv[1], atoi(argv[3]));
    closed = endpoint(argv[1], atoi(argv[4]));
    connected_socket();
    refusals();
    unconnected_socket();
    messages();
    probe(argv[1]);
    if (family(&echo) == AF_INET) mapped(argv[1], atoi(argv[2]));
    return 0;
}
