/* The least that a server does: listen PORT
 *
 * Listens, and ends. */
#include "common.h"
#include <netinet/in.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    if (argc != 2)
        usage("listen PORT");
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    int listener = (int)checked("socket", socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    checked("bind", bind(listener, (struct sockaddr *)&address, sizeof address));
    checked("listen", listen(listener, 1));
    return 0;
}
