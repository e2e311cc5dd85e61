/* socket_names HOST PORT: getpeername and getsockname, in every way that programs ask for them. */
#include "conformance.h"

int main(int argc, char **argv) {
    begin();
    if (argc < 3) return 98;
    address to = endpoint(argv[1], atoi(argv[2]));
    int fd = stream_socket(&to);
    printf("peer before: %s\n", peer_of(fd));
    printf("local before: %s\n", local_of(fd));
    printf("connect: %s\n", outcome(connect(fd, raw(&to), to.length)));
    printf("peer: %s\n", peer_of(fd));
    printf("local: %s\n", local_of(fd));
    address got = {.length = sizeof got.storage};
    getpeername(fd, raw(&got), &got.length);
    printf("peer length right: %s\n", got.length == to.length ? "yes" : "no");
    got.length = sizeof got.storage;
    getsockname(fd, raw(&got), &got.length);
    printf("local length right: %s, port set: %s\n", got.length == to.length ? "yes" : "no",
           ((struct sockaddr_in *)&got.storage)->sin_port ? "yes" : "no");

    memset(&got.storage, 0xee, sizeof got.storage);
    got.length = 5;
    int result = getpeername(fd, raw(&got), &got.length);
    printf("peer in five bytes: %s, full length %s, sixth byte %s\n", outcome(result),
           got.length == to.length ? "told" : "not told",
           ((unsigned char *)&got.storage)[5] == 0xee ? "untouched" : "written");
    got.length = 0;
    result = getsockname(fd, raw(&got), &got.length);
    printf("local in no bytes: %s, full length %s\n", outcome(result), got.length == to.length ? "told" : "not told");
    got.length = (socklen_t)-4;
    printf("peer with negative length: %s\n", outcome(getpeername(fd, raw(&got), &got.length)));
    got.length = sizeof got.storage;
    printf("peer into bad pointer: %s\n", outcome(getpeername(fd, (struct sockaddr *)16, &got.length)));
    printf("peer with bad length pointer: %s\n", outcome(getpeername(fd, raw(&got), (socklen_t *)16)));
    printf("peer of bad descriptor: %s\n", outcome(getpeername(999, raw(&got), &got.length)));

    int copy = dup(fd);
    printf("peer of a dup: %s\n", peer_of(copy));
    int placed = dup2(fd, 200);
    printf("peer of a dup2: %s\n", peer_of(placed));
    close(fd);
    printf("peer after the first is closed: %s\n", peer_of(placed));
    printf("echo over the dup: %s\n", echoes(copy));
    pid_t child = fork();
    if (!child) {
        printf("peer in a child: %s\n", peer_of(copy));
        printf("echo in a child: %s\n", echoes(placed));
        _exit(0);
    }
    waitpid(child, NULL, 0);
    shutdown(copy, SHUT_WR);
    printf("service: %s\n", receive_line(copy));
    printf("end: %s\n", receive_line(copy));
    printf("peer after both ended: %s\n", peer_of(copy));
    printf("local after both ended: %s\n", local_of(copy));
    if (family(&to) == AF_INET) {
        char mapped[64];
        snprintf(mapped, sizeof mapped, "::ffff:%s", argv[1]);
        address as_six = endpoint(mapped, atoi(argv[2]));
        int six = stream_socket(&as_six);
        printf("v4-mapped: %s\n", outcome(connect(six, raw(&as_six), as_six.length)));
        printf("v4-mapped peer: %s\n", peer_of(six));
        printf("v4-mapped local: %s\n", local_of(six));
        printf("v4-mapped echo: %s\n", echoes(six));
        int only = stream_socket(&as_six), on = 1;
        setsockopt(only, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
        printf("v4-mapped when IPv6 only: %s\n", outcome(connect(only, raw(&as_six), as_six.length)));
    }
    return 0;
}
