/* signals HOST SILENT ECHO UDP_ECHO: stopping, continuing and interrupting look as they do without anyone watching. */
#include "conformance.h"
#include <pthread.h>
#include <sys/signalfd.h>
#include <sys/time.h>

static const char *host;
static int silent_port, echo_port, udp_port;
static volatile sig_atomic_t handled;

static void on_signal(int signal_number) { handled = signal_number; }

static void handle(int signal_number, int flags) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = flags};
    sigaction(signal_number, &action, NULL);
}

static void alarm_in(long milliseconds) {
    struct itimerval when = {.it_value = {.tv_sec = milliseconds / 1000, .tv_usec = milliseconds % 1000 * 1000}};
    setitimer(ITIMER_REAL, &when, NULL);
}

static const char *status_text(int status) {
    static char buffer[60];
    if (WIFSTOPPED(status)) snprintf(buffer, 60, "stopped by %d", WSTOPSIG(status));
    else if (WIFCONTINUED(status)) snprintf(buffer, 60, "continued");
    else if (WIFSIGNALED(status)) snprintf(buffer, 60, "killed by %d", WTERMSIG(status));
    else snprintf(buffer, 60, "exited with %d", WEXITSTATUS(status));
    return buffer;
}

static void await(const char *what, pid_t child) {
    int status;
    pid_t got = waitpid(child, &status, WUNTRACED | WCONTINUED);
    printf("%s: %s\n", what, got == child ? status_text(status) : errno_name(errno));
}

/* A child that has ended before its parent waits is not reported as continued any more: it stays until it may leave. */
static int may_leave[2];

static void stay(void) {
    char byte;
    if (read(may_leave[0], &byte, 1) != 1) die("read");
}

static void let_leave(void) {
    if (write(may_leave[1], "l", 1) != 1) die("write");
}

static void stops(void) {
    pid_t child = fork();
    if (!child)
        for (;;) pause();
    setpgid(child, child); /* SIGTSTP does not stop an orphaned process group, and ours may be one */
    int stopping[] = {SIGSTOP, SIGTSTP, SIGTTIN};
    for (int i = 0; i < 3; i++) {
        kill(child, stopping[i]);
        await("a signal that stops", child);
        printf("a stopped child has nothing more to say: %d\n", waitpid(child, NULL, WNOHANG | WUNTRACED | WCONTINUED));
        kill(child, SIGCONT);
        await("SIGCONT", child);
    }
    kill(child, SIGSTOP);
    await("SIGSTOP", child);
    kill(child, SIGTERM);
    printf("SIGTERM waits for the stop to end: %d\n", waitpid(child, NULL, WNOHANG));
    kill(child, SIGCONT);
    int status;
    while (waitpid(child, &status, WUNTRACED | WCONTINUED) == child && WIFCONTINUED(status)) continue;
    printf("then: %s\n", status_text(status));
    child = fork();
    if (!child)
        for (;;) pause();
    kill(child, SIGSTOP);
    await("SIGSTOP", child);
    kill(child, SIGKILL);
    await("SIGKILL", child);
    child = fork();
    if (!child) {
        raise(SIGSTOP);
        stay();
        _exit(11);
    }
    await("a child that stops itself", child);
    kill(child, SIGCONT);
    await("SIGCONT", child);
    let_leave();
    await("at last", child);
}

/* A child that is stopped in the middle of a call goes on with that call. */
static void stopped_in_calls(void) {
    int answer[2];
    if (pipe(answer) < 0) die("pipe");
    pid_t child = fork();
    if (!child) {
        int fd = connected(host, echo_port);
        if (write(answer[1], "r", 1) != 1) _exit(9);
        const char *line = receive_line(fd); /* blocks: nothing was sent */
        printf("blocked read across a stop: %s\n", line);
        _exit(0);
    }
    char byte;
    if (read(answer[0], &byte, 1) != 1) die("read");
    kill(child, SIGSTOP);
    await("stopped while it reads", child);
    kill(child, SIGCONT);
    await("continued", child);
    printf("it reads again: %s\n", waitpid(child, NULL, WNOHANG) == 0 ? "yes" : "no");
    kill(child, SIGTERM);
    await("ended", child);

    child = fork();
    if (!child) {
        address silent = endpoint(host, silent_port);
        int fd = stream_socket(&silent);
        if (write(answer[1], "r", 1) != 1) _exit(9);
        const char *result = outcome(connect(fd, raw(&silent), silent.length));
        stay();
        printf("connect across a stop: %s\n", result);
        _exit(0);
    }
    if (read(answer[0], &byte, 1) != 1) die("read");
    usleep(100000); /* no call tells us that another process is inside of connect */
    kill(child, SIGSTOP);
    await("stopped while it connects", child);
    kill(child, SIGCONT);
    await("continued", child);
    let_leave();
    await("ended", child);

    child = fork();
    if (!child) {
        struct timespec duration = {.tv_nsec = 300000000}, rest = {0};
        if (write(answer[1], "r", 1) != 1) _exit(9);
        const char *result = outcome(nanosleep(&duration, &rest));
        stay();
        printf("sleep across a stop: %s\n", result);
        _exit(0);
    }
    if (read(answer[0], &byte, 1) != 1) die("read");
    kill(child, SIGSTOP);
    await("stopped while it sleeps", child);
    kill(child, SIGCONT);
    await("continued", child);
    let_leave();
    await("ended", child);
}

static void interruptions(void) {
    address silent = endpoint(host, silent_port);
    char buffer[10];
    handle(SIGALRM, 0);
    int fd = stream_socket(&silent);
    alarm_in(100);
    printf("connect, interrupted: %s\n", outcome(connect(fd, raw(&silent), silent.length)));
    printf("handled: %s\n", handled == SIGALRM ? "yes" : "no");
    close(fd);
    int udp = socket(AF_INET, SOCK_DGRAM, 0);
    address service = endpoint(host, udp_port);
    connect(udp, raw(&service), service.length);
    alarm_in(100);
    printf("recv, interrupted: %s\n", outcome(recv(udp, buffer, 10, 0)));
    address from = {.length = sizeof from.storage};
    alarm_in(100);
    printf("recvfrom, interrupted: %s\n", outcome(recvfrom(udp, buffer, 10, 0, raw(&from), &from.length)));
    send(udp, "after", 5, 0);
    printf("recvfrom afterwards: %ld\n", (long)recvfrom(udp, buffer, 10, 0, raw(&from), &from.length));

    handle(SIGALRM, SA_RESTART);
    handled = 0;
    int answer[2];
    if (pipe(answer) < 0) die("pipe");
    pid_t child = fork();
    if (!child) {
        handle(SIGUSR1, SA_RESTART);
        int sender = socket(AF_INET, SOCK_DGRAM, 0);
        connect(sender, raw(&service), service.length);
        if (write(answer[1], "r", 1) != 1) _exit(9);
        printf("recv, restarted: %ld\n", (long)recv(sender, buffer, 10, 0));
        printf("handled: %s\n", handled == SIGUSR1 ? "yes" : "no");
        _exit(0);
    }
    char byte;
    if (read(answer[0], &byte, 1) != 1) die("read");
    for (int i = 0; i < 5; i++) {
        usleep(20000);
        kill(child, SIGUSR1);
    }
    usleep(20000);
    kill(child, SIGTERM);
    await("still receiving, then", child);

    fd = stream_socket(&silent);
    alarm_in(100);
    printf("connect, restarted: %s\n", outcome(connect(fd, raw(&silent), silent.length)));
    printf("handled: %s\n", handled == SIGALRM ? "yes" : "no");
    close(fd);
}

static void *connects(void *count) {
    for (int i = 0; i < 50; i++) {
        int fd = connected(host, echo_port);
        if (strcmp(echoes(fd), "echoed") == 0) ++*(int *)count;
        close(fd);
    }
    return NULL;
}

/* A signal every millisecond, restarted, while four threads connect. */
static void storm(void) {
    handle(SIGALRM, SA_RESTART);
    struct itimerval often = {.it_value = {.tv_usec = 1000}, .it_interval = {.tv_usec = 1000}}, never = {.it_value = {0}};
    int counts[4] = {0};
    pthread_t threads[4];
    setitimer(ITIMER_REAL, &often, NULL);
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, connects, &counts[i]);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    setitimer(ITIMER_REAL, &never, NULL);
    printf("in a storm of signals: %d of 200\n", counts[0] + counts[1] + counts[2] + counts[3]);
}

static void queued(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    for (int i = 1; i <= 3; i++) sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = i});
    kill(getpid(), SIGUSR2);
    int fd = signalfd(-1, &set, SFD_NONBLOCK);
    struct signalfd_siginfo info;
    while (read(fd, &info, sizeof info) == sizeof info)
        printf("queued signal: %s code %d value %d from itself %s\n", (int)info.ssi_signo == SIGRTMIN ? "RTMIN" : "USR2",
               info.ssi_code, info.ssi_int, (pid_t)info.ssi_pid == getpid() ? "yes" : "no");
    siginfo_t waited;
    kill(getpid(), SIGUSR2);
    printf("sigwaitinfo: %s, code %d\n", sigwaitinfo(&set, &waited) == SIGUSR2 ? "USR2" : "other", waited.si_code);
}

int main(int argc, char **argv) {
    begin();
    if (argc < 5) return 98;
    host = argv[1];
    silent_port = atoi(argv[2]);
    echo_port = atoi(argv[3]);
    udp_port = atoi(argv[4]);
    if (pipe(may_leave) < 0) die("pipe");
    stops();
    stopped_in_calls();
    interruptions();
    storm();
    queued();
    return 0;
}
