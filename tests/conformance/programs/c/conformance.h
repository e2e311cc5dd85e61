/* What every program here shares: one line per observation, and names for errnos, so that the output of a run inside
 * the pod and of one outside under the tool can be compared as text. Nothing printed depends on time, process ids or
 * ephemeral ports. Every program sets an alarm: a hang ends as SIGALRM, never as a stuck suite. */
#ifndef CONFORMANCE_H
#define CONFORMANCE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *errno_name(int number) {
    switch (number) {
    case 0: return "OK";
    case EACCES: return "EACCES";
    case EADDRINUSE: return "EADDRINUSE";
    case EADDRNOTAVAIL: return "EADDRNOTAVAIL";
    case EAFNOSUPPORT: return "EAFNOSUPPORT";
    case EAGAIN: return "EAGAIN";
    case EALREADY: return "EALREADY";
    case EBADF: return "EBADF";
    case ECHILD: return "ECHILD";
    case ECONNABORTED: return "ECONNABORTED";
    case ECONNREFUSED: return "ECONNREFUSED";
    case ECONNRESET: return "ECONNRESET";
    case EDESTADDRREQ: return "EDESTADDRREQ";
    case EFAULT: return "EFAULT";
    case EHOSTUNREACH: return "EHOSTUNREACH";
    case EINPROGRESS: return "EINPROGRESS";
    case EINTR: return "EINTR";
    case EINVAL: return "EINVAL";
    case EISCONN: return "EISCONN";
    case EMSGSIZE: return "EMSGSIZE";
    case ENETUNREACH: return "ENETUNREACH";
    case ENOENT: return "ENOENT";
    case ENOEXEC: return "ENOEXEC";
    case ENOSYS: return "ENOSYS";
    case ENOTCONN: return "ENOTCONN";
    case ENOTSOCK: return "ENOTSOCK";
    case EOPNOTSUPP: return "EOPNOTSUPP";
    case EPERM: return "EPERM";
    case EPIPE: return "EPIPE";
    case EPROTOTYPE: return "EPROTOTYPE";
    case ETIMEDOUT: return "ETIMEDOUT";
    default: return strerror(number);
    }
}

/* The name of what a call that returns -1 on failure did. */
static inline const char *outcome(long result) { return result >= 0 ? "OK" : errno_name(errno); }

static inline void die(const char *what) {
    printf("%s failed: %s\n", what, errno_name(errno));
    fflush(stdout);
    exit(99);
}

/* Line buffered output, so that forked children never flush a parent's lines again; SIGALRM after a minute. */
static inline void begin(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    alarm(60);
}

typedef struct {
    struct sockaddr_storage storage;
    socklen_t length;
} address;

/* A numeric IPv4 or IPv6 host and a port. */
static inline address endpoint(const char *host, int port) {
    address made;
    memset(&made, 0, sizeof made);
    struct sockaddr_in *four = (struct sockaddr_in *)&made.storage;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&made.storage;
    if (inet_pton(AF_INET, host, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons(port);
        made.length = sizeof *four;
    } else if (inet_pton(AF_INET6, host, &six->sin6_addr) == 1) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons(port);
        made.length = sizeof *six;
    } else {
        printf("not an address: %s\n", host);
        exit(99);
    }
    return made;
}

static inline struct sockaddr *raw(address *of) { return (struct sockaddr *)&of->storage; }

static inline int family(address *of) { return of->storage.ss_family; }

/* "host port" with the port only where it is known not to be ephemeral; unix paths with '@' for NUL. */
static inline const char *text(const struct sockaddr *of, socklen_t length, int with_port) {
    static char buffers[4][160];
    static int next;
    char *buffer = buffers[next++ & 3];
    char host[INET6_ADDRSTRLEN];
    if (length < sizeof(sa_family_t)) return "(none)";
    if (of->sa_family == AF_INET) {
        const struct sockaddr_in *four = (const void *)of;
        inet_ntop(AF_INET, &four->sin_addr, host, sizeof host);
        if (with_port) snprintf(buffer, 160, "inet %s %d", host, ntohs(four->sin_port));
        else snprintf(buffer, 160, "inet %s", host);
    } else if (of->sa_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const void *)of;
        inet_ntop(AF_INET6, &six->sin6_addr, host, sizeof host);
        if (with_port) snprintf(buffer, 160, "inet6 %s %d", host, ntohs(six->sin6_port));
        else snprintf(buffer, 160, "inet6 %s", host);
    } else if (of->sa_family == AF_UNIX) {
        const struct sockaddr_un *local = (const void *)of;
        size_t used = length - offsetof(struct sockaddr_un, sun_path);
        snprintf(buffer, 160, "unix %s%.*s", used && !local->sun_path[0] ? "@" : "",
                 used ? (int)(local->sun_path[0] ? used : used - 1) : 0, local->sun_path + (used && !local->sun_path[0]));
    } else snprintf(buffer, 160, "family %d", of->sa_family);
    return buffer;
}

static inline const char *peer_of(int fd) {
    address got = {.length = sizeof got.storage};
    if (getpeername(fd, raw(&got), &got.length) < 0) return errno_name(errno);
    return text(raw(&got), got.length, 1);
}

/* The local host only: the port is the kernel's choice. */
static inline const char *local_of(int fd) {
    address got = {.length = sizeof got.storage};
    if (getsockname(fd, raw(&got), &got.length) < 0) return errno_name(errno);
    return text(raw(&got), got.length, 0);
}

static inline int so_error(int fd) {
    int value = -1;
    socklen_t length = sizeof value;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &length) < 0) die("getsockopt");
    return value;
}

static inline int stream_socket(address *to) {
    int fd = socket(family(to), SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    return fd;
}

/* A connected stream socket, or the end of the program. */
static inline int connected(const char *host, int port) {
    address to = endpoint(host, port);
    int fd = stream_socket(&to);
    if (connect(fd, raw(&to), to.length) < 0) die("connect");
    return fd;
}

static inline void send_all(int fd, const void *data, size_t size) {
    for (size_t sent = 0; sent < size;) {
        ssize_t now = send(fd, (const char *)data + sent, size - sent, MSG_NOSIGNAL);
        if (now < 0) die("send");
        sent += now;
    }
}

/* One line without its newline, or what ended it in angle brackets. */
static inline const char *receive_line(int fd) {
    static char buffers[4][256];
    static int next;
    char *buffer = buffers[next++ & 3];
    size_t used = 0;
    while (used < 255) {
        ssize_t now = recv(fd, buffer + used, 1, 0);
        if (now < 0) return errno_name(errno);
        if (now == 0) {
            buffer[used] = 0;
            return used ? buffer : "<end>";
        }
        if (buffer[used] == '\n') break;
        used++;
    }
    buffer[used] = 0;
    return buffer;
}

/* Sends a line to the echo service and says whether the same came back. */
static inline const char *echoes(int fd) {
    send_all(fd, "ping\n", 5);
    const char *answer = receive_line(fd);
    return strcmp(answer, "ping") ? answer : "echoed";
}

/* What a poll for the events says within the time. */
static inline int ready(int fd, short events, int timeout_ms) {
    struct pollfd one = {.fd = fd, .events = events};
    int count;
    do count = poll(&one, 1, timeout_ms);
    while (count < 0 && errno == EINTR);
    return count > 0 ? one.revents : 0;
}

/* What a non-blocking connect comes to. Whether it is known at once or later is the network's affair: programs
 * handle both, and both must give the same in the end. */
static inline const char *settled(int fd, address *to, int timeout_ms) {
    if (connect(fd, raw(to), to->length) == 0) return "connected";
    if (errno != EINPROGRESS) return errno_name(errno);
    if (!ready(fd, POLLOUT, timeout_ms)) return "still connecting";
    int error = so_error(fd);
    return error ? errno_name(error) : "connected";
}

/* A text that names this run of this program to the pod's ledger; never printed. */
static inline const char *token(void) {
    static char made[64];
    static int count;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(made, sizeof made, "%d-%lld-%ld-%d", getpid(), (long long)now.tv_sec, now.tv_nsec, count++);
    return made;
}
#endif
