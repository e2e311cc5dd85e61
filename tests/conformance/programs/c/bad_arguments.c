/* bad_arguments HOST PORT: calls that the kernel refuses must be refused alike, whoever looks at their arguments. */
#include "conformance.h"

int main(int argc, char **argv) {
    begin();
    if (argc < 3) return 98;
    address to = endpoint(argv[1], atoi(argv[2]));
    int fd = stream_socket(&to);
    printf("bad descriptor: %s\n", outcome(connect(999, raw(&to), to.length)));
    int file = open("/dev/null", O_RDWR);
    printf("not a socket: %s\n", outcome(connect(file, raw(&to), to.length)));
    printf("bad pointer: %s\n", outcome(connect(fd, (struct sockaddr *)16, to.length)));
    printf("too short: %s\n", outcome(connect(fd, raw(&to), 4)));
    printf("length zero: %s\n", outcome(connect(fd, raw(&to), 0)));
    printf("too long: %s\n", outcome(connect(fd, raw(&to), 4096)));
    printf("negative length: %s\n", outcome(connect(fd, raw(&to), (socklen_t)-1)));
    address other = to;
    other.storage.ss_family = 77;
    printf("unknown family: %s\n", outcome(connect(fd, raw(&other), other.length)));
    address six = endpoint("fd00:198:18::10", 7007);
    printf("IPv6 address on an IPv4 socket: %s\n", outcome(connect(fd, raw(&six), six.length)));
    int six_fd = socket(AF_INET6, SOCK_STREAM, 0);
    printf("IPv6 address cut short: %s\n", outcome(connect(six_fd, raw(&six), 20)));
    printf("IPv4 address on an IPv6 socket: %s\n", outcome(connect(six_fd, raw(&to), to.length)));
    printf("peer before: %s\n", peer_of(fd));
    printf("send before: %s\n", outcome(send(fd, "x", 1, MSG_NOSIGNAL)));
    char one;
    printf("receive before: %s\n", outcome(recv(fd, &one, 1, 0)));
    printf("still connects: %s\n", outcome(connect(fd, raw(&to), to.length)));
    printf("echo: %s\n", echoes(fd));
    printf("second connect: %s\n", outcome(connect(fd, raw(&to), to.length)));
    printf("echo after: %s\n", echoes(fd));
    int udp = socket(AF_INET, SOCK_DGRAM, 0);
    printf("send without destination: %s\n", outcome(send(udp, "x", 1, 0)));
    printf("sendto bad pointer: %s\n", outcome(sendto(udp, "x", 1, 0, (struct sockaddr *)16, to.length)));
    printf("sendto bad payload: %s\n", outcome(sendto(udp, (void *)16, 8, 0, raw(&to), to.length)));
    printf("sendto too short: %s\n", outcome(sendto(udp, "x", 1, 0, raw(&to), 6)));
    printf("sendto port 0: %s\n", outcome(({
               address zero = endpoint(argv[1], 0);
               sendto(udp, "x", 1, 0, raw(&zero), zero.length);
           })));
    static char large[70000];
    printf("sendto too large: %s\n", outcome(sendto(udp, large, sizeof large, 0, raw(&to), to.length)));
    printf("sendmsg bad header: %s\n", outcome(sendmsg(udp, (struct msghdr *)16, 0)));
    printf("recvmsg bad header: %s\n", outcome(recvmsg(udp, (struct msghdr *)16, MSG_DONTWAIT)));
    printf("recvfrom nothing: %s\n", outcome(recvfrom(udp, large, 10, MSG_DONTWAIT, NULL, NULL)));
    return 0;
}
