/* slow_connect HOST SILENT CONTROL: a connection whose answer is long in coming, or never comes. */
#include "conformance.h"
#include <sys/epoll.h>
#include <sys/time.h>

static const char *host;
static int control_port;

/* The port of a service that lets its first SYN pass unheard, and then does as asked. */
static int late_service(const char *what) {
    int fd = connected(host, control_port);
    send_all(fd, what, strlen(what));
    send_all(fd, "\n", 1);
    int port = atoi(receive_line(fd));
    close(fd);
    return port;
}

static void on_alarm(int signal_number) { (void)signal_number; }

static void interrupted(const char *how, int flags, address *to) {
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = flags};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval soon = {.it_value = {.tv_usec = 200000}};
    int fd = stream_socket(to);
    setitimer(ITIMER_REAL, &soon, NULL);
    printf("blocking connect %s: %s\n", how, outcome(connect(fd, raw(to), to->length)));
    close(fd);
}

int main(int argc, char **argv) {
    begin();
    if (argc < 4) return 98;
    host = argv[1];
    address silent = endpoint(host, atoi(argv[2]));
    control_port = atoi(argv[3]);

    int fd = stream_socket(&silent);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    printf("non-blocking: %s\n", outcome(connect(fd, raw(&silent), silent.length)));
    printf("events in half a second: %s\n", ready(fd, POLLIN | POLLOUT, 500) ? "some" : "none");
    printf("again: %s\n", outcome(connect(fd, raw(&silent), silent.length)));
    printf("peer: %s\n", peer_of(fd));
    printf("SO_ERROR: %s\n", errno_name(so_error(fd)));
    printf("send: %s\n", outcome(send(fd, "x", 1, MSG_NOSIGNAL)));
    close(fd);

    const char *orders[] = {"accept", "refuse"};
    for (int i = 0; i < 2; i++) {
        address late = endpoint(host, late_service(orders[i]));
        int set = epoll_create1(0);
        fd = stream_socket(&late);
        fcntl(fd, F_SETFL, O_NONBLOCK);
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data = {.fd = fd}};
        epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
        printf("late %s: %s\n", orders[i], outcome(connect(fd, raw(&late), late.length)));
        /* Before a connect, epoll may have told HUP: only what comes from here on counts. */
        struct epoll_event got = {0};
        epoll_wait(set, &got, 1, 0);
        printf("late %s, events at first: %s\n", orders[i], got.events & EPOLLIN ? "some" : "none");
        int count, error = 0;
        do {
            count = epoll_wait(set, &got, 1, 10000);
            error = so_error(fd);
        } while (count == 1 && !error && strcmp(peer_of(fd), "ENOTCONN") == 0);
        printf("late %s, SO_ERROR: %s\n", orders[i], errno_name(error));
        if (!error) {
            fcntl(fd, F_SETFL, 0);
            printf("late %s, peer is right: %s\n", orders[i],
                   strcmp(peer_of(fd), text(raw(&late), late.length, 1)) ? "no" : "yes");
            printf("late %s, echo: %s\n", orders[i], echoes(fd));
        } else printf("late %s, peer: %s\n", orders[i], peer_of(fd));
        close(fd);
        close(set);
    }

    address late = endpoint(host, late_service("accept"));
    fd = stream_socket(&late);
    printf("late accept, blocking: %s\n", outcome(connect(fd, raw(&late), late.length)));
    printf("late accept, blocking, echo: %s\n", echoes(fd));
    close(fd);
    late = endpoint(host, late_service("refuse"));
    fd = stream_socket(&late);
    printf("late refuse, blocking: %s\n", outcome(connect(fd, raw(&late), late.length)));
    close(fd);

    interrupted("with a signal", 0, &silent);
    struct timeval short_time = {.tv_usec = 200000};
    fd = stream_socket(&silent);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &short_time, sizeof short_time);
    printf("blocking connect with a send time-out: %s\n", outcome(connect(fd, raw(&silent), silent.length)));
    printf("asked again: %s\n", outcome(connect(fd, raw(&silent), silent.length)));
    close(fd);

    signal(SIGALRM, SIG_DFL);
    fd = stream_socket(&silent);
    printf("until it times out: %s\n", outcome(connect(fd, raw(&silent), silent.length)));
    close(fd);
    fd = stream_socket(&silent);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    printf("non-blocking until it times out: %s\n", settled(fd, &silent, 30000));
    close(fd);
    return 0;
}
