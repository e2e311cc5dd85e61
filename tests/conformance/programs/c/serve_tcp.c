/* serve_tcp NAME HOST PORT COUNT: serves COUNT connections at once, each in a thread, and says then what it saw of each.
 *
 * A connection is greeted with who it is to the server. Its first line says what becomes of it:
 *     echo LABEL    its bytes come back until it ends
 *     half LABEL    some bytes come, then the end of this half; its bytes are read until it ends
 *     sink LABEL    its bytes are read until it ends, then counted to it
 *     source LABEL  some megabytes come, then the end
 *     reset LABEL   it is reset
 * The lines are sorted in the end: what comes first is not the server's affair. */
#include "conformance.h"
#include <pthread.h>

#define SOURCE (3 << 20)
static const char *server_name;
static pthread_mutex_t naming = PTHREAD_MUTEX_INITIALIZER;

struct connection {
    pthread_t thread;
    int fd;
    address accepted;
    char line[1200];
};

static void note(struct connection *of, const char *what) {
    strncat(of->line, what, sizeof of->line - strlen(of->line) - 1);
}

static void note_bytes(struct connection *of, unsigned long long count, unsigned digest, const char *end) {
    char words[200];
    snprintf(words, sizeof words, "; got %llu bytes %08x, then %s", count, digest, end);
    note(of, words);
}

/* A line, with the address that recvfrom tells of its sender: none, on a connection. */
static int first_line(struct connection *of, char *line, int size) {
    int used = 0;
    while (used < size - 1) {
        address from = {.length = sizeof from.storage};
        ssize_t now = recvfrom(of->fd, line + used, 1, 0, raw(&from), &from.length);
        if (!used && from.length) note(of, "; recvfrom tells an address");
        if (now <= 0) return -1;
        if (line[used] == '\n') break;
        used++;
    }
    line[used] = 0;
    return 0;
}

static void take(struct connection *of, int echo) {
    static __thread unsigned char buffer[1 << 17];
    unsigned long long count = 0;
    unsigned digest = 2166136261u;
    ssize_t now;
    while ((now = recv(of->fd, buffer, sizeof buffer, 0)) > 0) {
        for (ssize_t at = 0; at < now; at++) digest = (digest ^ buffer[at]) * 16777619u;
        count += now;
        for (ssize_t sent = 0, some; echo && sent < now; sent += some)
            if ((some = send(of->fd, buffer + sent, now - sent, MSG_NOSIGNAL)) < 0) break;
    }
    note_bytes(of, count, digest, now ? errno_name(errno) : "the end");
    if (echo) return;
    char words[100];
    int size = snprintf(words, sizeof words, "%llu bytes %08x\n", count, digest);
    if (!now) send(of->fd, words, size, MSG_NOSIGNAL);
}

static void give(struct connection *of, int size) {
    static __thread char buffer[1 << 16];
    for (int at = 0; at < (int)sizeof buffer; at++) buffer[at] = (char)(at * 7);
    while (size > 0) {
        ssize_t now = send(of->fd, buffer, size < (int)sizeof buffer ? size : (int)sizeof buffer, MSG_NOSIGNAL);
        if (now < 0) {
            note(of, "; not all could be sent");
            return;
        }
        size -= now;
    }
}

static void *serve(void *argument) {
    struct connection *of = argument;
    address peer = {.length = sizeof peer.storage}, own = {.length = sizeof own.storage};
    char words[400], line[200], from[80], to[80];
    int known = getpeername(of->fd, raw(&peer), &peer.length) == 0 && peer.length == of->accepted.length &&
                !memcmp(&peer.storage, &of->accepted.storage, peer.length);
    getsockname(of->fd, raw(&own), &own.length);
    pthread_mutex_lock(&naming);
    int size = snprintf(words, sizeof words, "%s sees %s at %s\n", server_name,
                        text(raw(&of->accepted), of->accepted.length, 1), text(raw(&own), own.length, 1));
    strcpy(from, text(raw(&of->accepted), of->accepted.length, 0));
    strcpy(to, text(raw(&own), own.length, 1));
    pthread_mutex_unlock(&naming);
    int greeted = send(of->fd, words, size, MSG_NOSIGNAL) == size;
    if (first_line(of, line, sizeof line) < 0) strcpy(line, "nothing");
    snprintf(of->line, sizeof of->line, "%s: from %s to %s, getpeername %s%s", line, from, to,
             known ? "the same" : "another", greeted ? "" : ", not greeted");
    if (!strncmp(line, "echo", 4)) take(of, 1);
    if (!strncmp(line, "sink", 4)) take(of, 0);
    if (!strncmp(line, "source", 6)) give(of, SOURCE);
    if (!strncmp(line, "half", 4)) {
        give(of, 1000);
        shutdown(of->fd, SHUT_WR);
        take(of, 0);
    }
    if (!strncmp(line, "reset", 5)) {
        struct linger now = {.l_onoff = 1};
        setsockopt(of->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    }
    close(of->fd);
    return NULL;
}

static int by_line(const void *one, const void *other) {
    return strcmp(((const struct connection *)one)->line, ((const struct connection *)other)->line);
}

int main(int argc, char **argv) {
    begin();
    alarm(150);
    if (argc < 5) return 98;
    server_name = argv[1];
    address at = endpoint(argv[2], atoi(argv[3])), own = {.length = sizeof own.storage};
    int count = atoi(argv[4]), on = 1, listener = stream_socket(&at);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    printf("bind: %s\n", outcome(bind(listener, raw(&at), at.length)));
    printf("listen: %s\n", outcome(listen(listener, 1024)));
    getsockname(listener, raw(&own), &own.length);
    printf("listens at: %s\n", text(raw(&own), own.length, 1));
    printf("ready\n");
    struct connection *all = calloc(count, sizeof *all);
    for (int each = 0; each < count; each++) {
        struct connection *of = all + each;
        of->accepted.length = sizeof of->accepted.storage;
        of->fd = accept4(listener, raw(&of->accepted), &of->accepted.length, SOCK_CLOEXEC);
        if (of->fd < 0) die("accept");
        if (pthread_create(&of->thread, NULL, serve, of)) die("pthread_create");
    }
    for (int each = 0; each < count; each++) pthread_join(all[each].thread, NULL);
    qsort(all, count, sizeof *all, by_line);
    for (int each = 0; each < count; each++) printf("%s\n", all[each].line);
    return 0;
}
