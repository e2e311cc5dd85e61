/* serve_script NAME: does with sockets what the lines of standard input say, and answers each with one line. Sockets have
 * numbers, N and M, which are those of their descriptors less 100:
 *     tcp N | tcp6 N | udp N | udp6 N      a socket
 *     set N reuseport|reuseaddr|v6only 0|1
 *     bind N HOST PORT | listen N BACKLOG | close N | shutdown N | name N | dup N M
 *     accept N M | accept4 N M             a connection, which is told who it is; plain N M: without asking who it is
 *     peer N | say N WORD | hear N         of a connection
 *     fork N | pass N | threads N          a child, one that got the socket by a message, or two threads accept on it
 *     exec                                 the program begins again, with its sockets
 *     receive N | message N | peek N | read N    a datagram, with recvfrom, recvmsg, MSG_PEEK or read
 *     reply N WORD | answer N WORD         to the last sender, with sendto or sendmsg
 *     connect N HOST PORT
 * Ports of clients are not told: "its own port" if the connection's two names of it are the same. */
#include "conformance.h"
#include <pthread.h>

#define BASE 100

static const char *name;
static address sender;

static int at(const char *number) { return BASE + atoi(number); }

static void place(int fd, const char *number) {
    if (fd < 0) return;
    dup2(fd, at(number));
    close(fd);
}

static void tell_address(const char *what, address *of, int with_port) {
    printf("%s %s", what, text(raw(of), of->length, with_port));
}

/* Says who an accepted connection is, to it and on standard output. */
static void welcome(int fd, address *from) {
    address peer = {.length = sizeof peer.storage}, own = {.length = sizeof own.storage};
    char words[200];
    getpeername(fd, raw(&peer), &peer.length);
    getsockname(fd, raw(&own), &own.length);
    address *told = from ? from : &peer;
    printf("OK from %s to %s, getpeername %s\n", text(raw(told), told->length, 0), text(raw(&own), own.length, 1),
           peer.length == told->length && !memcmp(&peer.storage, &told->storage, peer.length) ? "the same" : "another");
    int size = snprintf(words, sizeof words, "%s sees %s\n", name, text(raw(told), told->length, 1));
    send(fd, words, size, MSG_NOSIGNAL);
}

static int accept_one(int listener, int way) {
    address from = {.length = sizeof from.storage};
    int fd = way == 4 ? accept4(listener, raw(&from), &from.length, SOCK_CLOEXEC)
                      : accept(listener, way ? raw(&from) : NULL, way ? &from.length : NULL);
    if (fd < 0) printf("%s\n", errno_name(errno));
    else welcome(fd, way ? &from : NULL);
    return fd;
}

static void *accept_in_thread(void *listener) {
    close(accept_one(*(int *)listener, 1));
    return NULL;
}

static void pass(int listener) {
    int pair[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 'x';
    struct iovec piece = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (!fork()) {
        for (int fd = BASE; fd < BASE + 20; fd++) close(fd);
        if (recvmsg(pair[1], &message, 0) < 0) die("recvmsg");
        int got;
        memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof got);
        close(accept_one(got, 1));
        _exit(0);
    }
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &listener, sizeof listener);
    if (sendmsg(pair[0], &message, 0) < 0) die("sendmsg");
    close(listener);
    wait(NULL);
    close(pair[0]);
    close(pair[1]);
}

static void receive(int fd, const char *way) {
    char buffer[70000], control[200];
    struct iovec piece = {.iov_base = buffer, .iov_len = sizeof buffer};
    struct msghdr message = {.msg_name = &sender.storage,
                             .msg_namelen = sizeof sender.storage,
                             .msg_iov = &piece,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    ssize_t size;
    sender.length = sizeof sender.storage;
    if (*way == 'm') {
        size = recvmsg(fd, &message, 0);
        sender.length = message.msg_namelen;
    } else if (!strcmp(way, "read")) size = read(fd, buffer, sizeof buffer);
    else size = recvfrom(fd, buffer, sizeof buffer, *way == 'p' ? MSG_PEEK : 0, raw(&sender), &sender.length);
    if (size < 0) printf("%s\n", errno_name(errno));
    else {
        printf("%zd bytes %.*s", size, size < 40 ? (int)size : 40, buffer);
        if (strcmp(way, "read")) tell_address(" from", &sender, 0);
        printf("\n");
    }
}

static void send_back(int fd, const char *way, char *word) {
    struct iovec piece = {.iov_base = word, .iov_len = strlen(word)};
    struct msghdr message = {
        .msg_name = &sender.storage, .msg_namelen = sender.length, .msg_iov = &piece, .msg_iovlen = 1};
    printf("%s\n", outcome(*way == 'a' ? sendmsg(fd, &message, 0)
                                       : sendto(fd, word, strlen(word), 0, raw(&sender), sender.length)));
}

static void do_one(char *line, char **argv) {
    char *words[5] = {"", "", "", "", ""}, *rest = line;
    for (int each = 0; each < 5 && rest; each++) words[each] = strsep(&rest, " ");
    const char *verb = words[0];
    int fd = at(words[1]);
    int six = verb[0] && verb[strlen(verb) - 1] == '6';
    if (!strncmp(verb, "tcp", 3) || !strncmp(verb, "udp", 3)) {
        int made = socket(six ? AF_INET6 : AF_INET, verb[0] == 't' ? SOCK_STREAM : SOCK_DGRAM, 0);
        printf("%s\n", outcome(made));
        place(made, words[1]);
    } else if (!strcmp(verb, "set")) {
        int value = atoi(words[3]), level = *words[2] == 'v' ? IPPROTO_IPV6 : SOL_SOCKET;
        int option = *words[2] == 'v' ? IPV6_V6ONLY : strcmp(words[2], "reuseport") ? SO_REUSEADDR : SO_REUSEPORT;
        printf("%s\n", outcome(setsockopt(fd, level, option, &value, sizeof value)));
    } else if (!strcmp(verb, "bind") || !strcmp(verb, "connect")) {
        address to = endpoint(words[2], atoi(words[3]));
        printf("%s\n", outcome(*verb == 'b' ? bind(fd, raw(&to), to.length) : connect(fd, raw(&to), to.length)));
    } else if (!strcmp(verb, "listen")) printf("%s\n", outcome(listen(fd, atoi(words[2]))));
    else if (!strcmp(verb, "close")) printf("%s\n", outcome(close(fd)));
    else if (!strcmp(verb, "shutdown")) printf("%s\n", outcome(shutdown(fd, SHUT_RDWR)));
    else if (!strcmp(verb, "dup")) printf("%s\n", outcome(dup2(fd, at(words[2]))));
    else if (!strcmp(verb, "name")) {
        address own = {.length = sizeof own.storage};
        getsockname(fd, raw(&own), &own.length);
        tell_address("is", &own, 1);
        printf("\n");
    } else if (!strcmp(verb, "peer")) printf("%s\n", peer_of(fd));
    else if (!strncmp(verb, "accept", 6)) place(accept_one(fd, verb[6] ? 4 : 1), words[2]);
    else if (!strcmp(verb, "plain")) place(accept_one(fd, 0), words[2]);
    else if (!strcmp(verb, "say")) printf("%s\n", outcome(send(fd, words[2], strlen(words[2]), MSG_NOSIGNAL)));
    else if (!strcmp(verb, "hear")) printf("%s\n", receive_line(fd));
    else if (!strcmp(verb, "fork")) {
        if (!fork()) {
            close(accept_one(fd, 1));
            _exit(0);
        }
        wait(NULL);
    } else if (!strcmp(verb, "pass")) pass(fd);
    else if (!strcmp(verb, "threads")) {
        pthread_t both[2];
        for (int each = 0; each < 2; each++) pthread_create(both + each, NULL, accept_in_thread, &fd);
        for (int each = 0; each < 2; each++) pthread_join(both[each], NULL);
    } else if (!strcmp(verb, "exec")) {
        argv[2] = "again";
        execv("/proc/self/exe", argv);
        die("execv");
    } else if (!strcmp(verb, "reply") || !strcmp(verb, "answer")) send_back(fd, verb, words[2]);
    else receive(fd, verb);
}

int main(int argc, char **argv) {
    begin();
    setvbuf(stdin, NULL, _IONBF, 0);
    if (argc < 3) return 98;
    name = argv[1];
    printf("%s\n", !strcmp(argv[2], "again") ? "begun again" : "ready");
    char line[400];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        do_one(line, argv);
    }
    return 0;
}
