/* unix_streams ADDRESS...: Unix sockets, pathname or ('@' first) abstract: which are reached, and how they answer. */
#include "conformance.h"

int main(int argc, char **argv) {
    begin();
    for (int i = 1; i < argc; i++) {
        address to = {.length = 0};
        struct sockaddr_un *local = (struct sockaddr_un *)&to.storage;
        local->sun_family = AF_UNIX;
        size_t length = strlen(argv[i]);
        memcpy(local->sun_path, argv[i], length + 1);
        if (argv[i][0] == '@') local->sun_path[0] = 0;
        to.length = offsetof(struct sockaddr_un, sun_path) + length + (argv[i][0] != '@');
        int fd = stream_socket(&to);
        int result = connect(fd, raw(&to), to.length);
        printf("%s: %s\n", argv[i], outcome(result));
        if (!result) {
            printf("%s peer: %s\n", argv[i], peer_of(fd));
            printf("%s local: %s\n", argv[i], local_of(fd));
            printf("%s echo: %s\n", argv[i], echoes(fd));
            shutdown(fd, SHUT_WR);
            printf("%s end: %s\n", argv[i], receive_line(fd));
        }
        close(fd);
        fd = stream_socket(&to);
        fcntl(fd, F_SETFL, O_NONBLOCK);
        printf("%s non-blocking: %s\n", argv[i], settled(fd, &to, 5000));
        close(fd);
    }
    return 0;
}
