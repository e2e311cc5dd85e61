/* debuggee NAME HOST PORT: what a debugger steps through. Each function makes calls that somebody may intercept. */
#include "conformance.h"
#include <netdb.h>
#include <sys/utsname.h>

static const char *resolved(const char *name) {
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
    int failure = getaddrinfo(name, NULL, &hints, &found);
    if (failure) return gai_strerror(failure);
    const char *shown = text(found->ai_addr, found->ai_addrlen, 0);
    freeaddrinfo(found);
    return shown;
}

static const char *name_server(void) {
    static char line[100];
    int fd = open("/etc/resolv.conf", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return errno_name(errno);
    ssize_t size = read(fd, line, sizeof line - 1);
    close(fd);
    line[size < 0 ? 0 : size] = 0;
    line[strcspn(line, "\n")] = 0;
    return line;
}

static int reached(const char *host, int port) {
    address to = endpoint(host, port);
    int fd = stream_socket(&to);
    int result = connect(fd, raw(&to), to.length);
    return result < 0 ? -errno : fd;
}

static const char *host_name(void) {
    static struct utsname names;
    uname(&names);
    return names.nodename;
}

int main(int count, char **arguments) {
    if (count != 4) return 99;
    begin();
    const char *name = resolved(arguments[1]);
    printf("resolved: %s\n", name);
    const char *server = name_server();
    printf("resolver: %s\n", server);
    int fd = reached(arguments[2], atoi(arguments[3]));
    printf("peer: %s\n", fd < 0 ? errno_name(-fd) : peer_of(fd));
    printf("local: %s\n", local_of(fd));
    printf("echo: %s\n", echoes(fd));
    printf("host name: %s\n", host_name());
    return 7;
}
