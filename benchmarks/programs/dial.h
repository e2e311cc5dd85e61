/* Connections to the far side, directly or through a SOCKS server on this machine (`ssh -D`). */
#ifndef DIAL_H
#define DIAL_H

#include "common.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

struct far_side {
    struct sockaddr_in address;
    struct sockaddr_in proxy; /* family 0: none */
};

static UNUSED struct sockaddr_in ipv4(const char *address, const char *port)
{
    struct sockaddr_in result = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    if (inet_pton(AF_INET, address, &result.sin_addr) != 1)
        usage("an address is four numbers with dots");
    return result;
}

static UNUSED void send_all(int socket, const void *data, size_t length)
{
    for (const char *at = data; length;) {
        ssize_t sent = checked("send", send(socket, at, length, MSG_NOSIGNAL));
        at += sent;
        length -= (size_t)sent;
    }
}

static UNUSED void receive_all(int socket, void *data, size_t length)
{
    if (length && checked("recv", recv(socket, data, length, MSG_WAITALL)) != (ssize_t)length) {
        errno = ECONNRESET;
        fail("recv");
    }
}

/* A connection to the far side. SOCKS5 without a password: RFC 1928. */
static UNUSED int dial(const struct far_side *to)
{
    int connection = (int)checked("socket", socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const struct sockaddr_in *first = to->proxy.sin_family ? &to->proxy : &to->address;
    checked("connect", connect(connection, (const struct sockaddr *)first, sizeof *first));
    if (!to->proxy.sin_family)
        return connection;
    uint8_t request[10] = {5, 1, 0, 1}, answer[10];
    send_all(connection, "\5\1\0", 3);
    receive_all(connection, answer, 2);
    memcpy(request + 4, &to->address.sin_addr, 4);
    memcpy(request + 8, &to->address.sin_port, 2);
    send_all(connection, request, sizeof request);
    receive_all(connection, answer, sizeof answer);
    if (answer[1] != 0) {
        errno = ECONNREFUSED;
        fail("SOCKS connect");
    }
    return connection;
}

#endif
