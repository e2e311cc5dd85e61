/* connect_errors HOST PORT...: what a blocking and a non-blocking connect to each come to. */
#include "conformance.h"

int main(int argc, char **argv) {
    begin();
    for (int i = 1; i + 1 < argc; i += 2) {
        address to = endpoint(argv[i], atoi(argv[i + 1]));
        int blocking = stream_socket(&to);
        const char *result = outcome(connect(blocking, raw(&to), to.length));
        printf("blocking %s %s: %s, then peer %s\n", argv[i], argv[i + 1], result, peer_of(blocking));
        int nonblocking = stream_socket(&to);
        fcntl(nonblocking, F_SETFL, O_NONBLOCK);
        result = settled(nonblocking, &to, 20000);
        printf("non-blocking %s %s: %s, then peer %s\n", argv[i], argv[i + 1], result, peer_of(nonblocking));
        /* A socket whose connect failed can be connected again, to something that is there or not. */
        result = outcome(connect(blocking, raw(&to), to.length));
        printf("again %s %s: %s\n", argv[i], argv[i + 1], result);
        close(blocking);
        close(nonblocking);
    }
    return 0;
}
