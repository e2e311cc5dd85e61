/* file_descriptors ROOT: paths relative to descriptors and to the working directory; descriptors that change hands. */
#include "files.h"
#include <limits.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <sched.h>
#include <sys/statfs.h>

static char *root;

/* Where a link of /proc leads. */
static const char *link_of(const char *name) {
    static char buffers[4][PATH_MAX + 1];
    static int next;
    char *buffer = buffers[next++ & 3], path[100];
    snprintf(path, sizeof path, "/proc/self/%s", name);
    ssize_t size = readlink(path, buffer, PATH_MAX);
    if (size < 0) return said(-1);
    buffer[size] = 0;
    return buffer;
}

static const char *link_of_fd(int fd) {
    char name[30];
    snprintf(name, sizeof name, "fd/%d", fd);
    return link_of(name);
}

static const char *here(void) {
    static char buffer[PATH_MAX + 1];
    return getcwd(buffer, sizeof buffer) ? buffer : said(-1);
}

static const char *first_line(int directory, const char *path) {
    static char buffers[4][100];
    static int next;
    char *buffer = buffers[next++ & 3];
    int fd = openat(directory, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return said(fd);
    ssize_t size = read(fd, buffer, 99);
    if (size < 0) snprintf(buffer, 100, "%s", said(-1));
    else buffer[size] = 0, buffer[strcspn(buffer, "\n")] = 0;
    close(fd);
    return buffer;
}

static void relative_to(const char *what, int directory) {
    struct stat of;
    struct statx more;
    char target[100];
    printf("# relative to %s, which is %s\n", what, directory == AT_FDCWD ? here() : link_of_fd(directory));
    printf("openat: %s, ../: %s, through a link: %s\n", first_line(directory, "small.txt"),
           first_line(directory, "../a/small.txt"), first_line(directory, "../links/absolute"));
    printf("absolute: %s\n", first_line(directory, joined(root, "a/b/c/deep.txt")));
    printf("fstatat: %s\n", fstatat(directory, "odd", &of, 0) < 0 ? said(-1) : status_text(&of));
    printf("of a link: %s\n", fstatat(directory, "../links/relative", &of, AT_SYMLINK_NOFOLLOW) < 0 ? said(-1)
                                                                                                    : status_text(&of));
    printf("statx: %s\n", said(statx(directory, "odd", 0, STATX_BASIC_STATS, &more)));
    printf("statx size %lld, mode %o\n", (long long)more.stx_size, more.stx_mode);
    printf("faccessat: %s %s\n", said(faccessat(directory, "odd", R_OK, 0)), said(faccessat(directory, "none", F_OK, 0)));
    printf("faccessat2: %s\n", said(syscall(439, directory, "../links/dangling", F_OK, AT_SYMLINK_NOFOLLOW)));
    ssize_t size = readlinkat(directory, "../links/absolute", target, sizeof target);
    printf("readlinkat: %.*s\n", (int)(size < 0 ? 0 : size), target);
    printf("above the root: %s\n", first_line(directory, "../../../../../../../srv/data/a/small.txt"));
    printf("nothing: %s, below a file: %s, empty: %s\n", first_line(directory, "nothing"),
           first_line(directory, "small.txt/x"), first_line(directory, ""));
}

static void empty_path(const char *what, int fd) {
    struct stat of;
    struct statx more;
    struct statfs system;
    char target[100];
    printf("# %s, with an empty path\n", what);
    printf("fstatat: %s\n", fstatat(fd, "", &of, AT_EMPTY_PATH) < 0 ? said(-1) : status_text(&of));
    printf("fstat: %s\n", fstat(fd, &of) < 0 ? said(-1) : status_text(&of));
    printf("statx: %s\n", said(statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &more)));
    printf("without the flag: %s\n", said(fstatat(fd, "", &of, 0)));
    printf("faccessat2: %s\n", said(syscall(439, fd, "", R_OK, AT_EMPTY_PATH)));
    ssize_t size = readlinkat(fd, "", target, sizeof target);
    printf("readlinkat: %.*s%s\n", (int)(size < 0 ? 0 : size), target, size < 0 ? said(-1) : "");
    printf("fstatfs: %s, read: %s\n", said(fstatfs(fd, &system)), said(read(fd, target, 1)));
    printf("fgetxattr: %s\n", said(fgetxattr(fd, "user.nothing", NULL, 0)));
    printf("fchdir: %s\n", said(fchdir(fd)));
    printf("then in %s\n", here());
    if (chdir(root) < 0) die("chdir");
}

static void entering(void) {
    printf("# working directories\n");
    int start = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (chdir(root) < 0) die("chdir");
    printf("in %s, by link %s\n", here(), link_of("cwd"));
    const char *steps[] = {"a", ".", "..", "links/directory", "../links/absolute-directory/c", "../../..", "links/parent",
                           "nothing", "a/small.txt", "links/loop-1", "/srv", "data", "/"};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        int result = chdir(steps[i]);
        printf("chdir %s: %s", steps[i], said(result));
        printf(", in %s, by link %s\n", here(), link_of("cwd"));
    }
    if (fchdir(start) < 0) die("fchdir");
    printf("back where it began: %s\n", strstr(here(), root) ? "no" : "yes");
    close(start);
    if (chdir(root) < 0) die("chdir");
    char small[4], exact[sizeof "/srv/data"];
    printf("getcwd with little room: %s\n", getcwd(small, sizeof small) ? small : said(-1));
    printf("getcwd with just enough: %s\n", getcwd(exact, strlen(root) + 1) ? exact : said(-1));
    printf("the call itself: %ld\n", syscall(SYS_getcwd, (char[200]){0}, 200));
    char *resolved = realpath("links/chain-1", NULL);
    printf("realpath: %s\n", resolved ? resolved : said(-1));
    resolved = realpath("/srv/data/links/forty/6", NULL);
    printf("realpath through many: %s\n", resolved ? resolved : said(-1));
    if (fork() == 0) {
        printf("a child is in %s", here());
        printf(" and goes to %s\n", chdir("a/b") < 0 ? said(-1) : here());
        _exit(0);
    }
    wait(NULL);
    printf("the parent is in %s\n", here());
}

static void *thread_elsewhere(void *unused) {
    (void)unused;
    if (unshare(CLONE_FS) < 0) die("unshare");
    printf("a thread of its own goes: %s", said(chdir("a/b/c")));
    printf(", reads %s\n", first_line(AT_FDCWD, "deep.txt"));
    return NULL;
}

static void *thread_too(void *unused) {
    (void)unused;
    printf("a thread goes: %s\n", said(chdir("a/b")));
    return NULL;
}

static void threads(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, thread_elsewhere, NULL);
    pthread_join(thread, NULL);
    printf("the others stay in %s\n", here());
    pthread_create(&thread, NULL, thread_too, NULL);
    pthread_join(thread, NULL);
    printf("the others are in %s\n", here());
    if (chdir(root) < 0) die("chdir");
}

static void resolving(int directory) {
    printf("# openat2\n");
    const struct { const char *name; uint64_t resolve; } ways[] = {
        {"beneath", RESOLVE_BENEATH}, {"in root", RESOLVE_IN_ROOT}, {"no links", RESOLVE_NO_SYMLINKS},
        {"no magic links", RESOLVE_NO_MAGICLINKS},
    };
    const char *paths[] = {"small.txt", "b/c/deep.txt", "../a/small.txt", "/srv/data/a/small.txt", "b/../small.txt",
                           "/small.txt", "../links/relative", "../../../small.txt", "nothing", "page"};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        for (size_t each = 0; each < sizeof paths / sizeof *paths; each++) {
            struct open_how how = {.flags = O_RDONLY | O_CLOEXEC, .resolve = ways[i].resolve};
            int fd = syscall(SYS_openat2, directory, paths[each], &how, sizeof how);
            printf("%s, %s: %s\n", ways[i].name, paths[each], said(fd));
            if (fd >= 0) close(fd);
        }
    struct open_how how = {.flags = O_RDONLY, .mode = 0600};
    printf("a mode without creating: %s\n", said(syscall(SYS_openat2, directory, "small.txt", &how, sizeof how)));
    how = (struct open_how){.flags = O_RDONLY | 1ULL << 40};
    printf("an unknown flag: %s\n", said(syscall(SYS_openat2, directory, "small.txt", &how, sizeof how)));
    how = (struct open_how){.flags = O_RDONLY};
    printf("too small: %s\n", said(syscall(SYS_openat2, directory, "small.txt", &how, 8)));
    printf("bad pointer: %s\n", said(syscall(SYS_openat2, directory, "small.txt", 16, sizeof how)));
}

static void give(int channel, int fd) {
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 'f';
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS, header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof(int));
    if (sendmsg(channel, &message, 0) != 1) die("sendmsg");
}

static int taken(int channel) {
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte;
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    int fd = -1;
    if (recvmsg(channel, &message, 0) != 1 || !CMSG_FIRSTHDR(&message)) die("recvmsg");
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

static void changing_hands(void) {
    printf("# descriptors that change hands\n");
    int channel[2], fd;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, channel) < 0) die("socketpair");
    if (fork() == 0) {
        give(channel[1], open("text/1/1.txt", O_RDONLY));
        give(channel[1], open("a", O_RDONLY | O_DIRECTORY));
        give(channel[1], open("a/odd", O_PATH));
        _exit(0);
    }
    tell_rest("a file that was passed", fd = taken(channel[0]));
    printf("it is %s\n", link_of_fd(fd));
    int directory = taken(channel[0]), path = taken(channel[0]);
    printf("a directory that was passed, %s: %s\n", link_of_fd(directory), first_line(directory, "small.txt"));
    char name[40];
    snprintf(name, sizeof name, "/proc/self/fd/%d", path);
    printf("a path that was passed, %s, opened: ", link_of_fd(path));
    int again = open(name, O_RDONLY);
    tell_rest(said(again), again);
    wait(NULL);
    /* One position for parent and child. */
    lseek(fd, 10, SEEK_SET);
    if (fork() == 0) _exit(read(fd, name, 7) != 7);
    wait(NULL);
    printf("position after a child's read: %lld\n", (long long)lseek(fd, 0, SEEK_CUR));
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    again = open(name, O_RDONLY);
    printf("opened anew it is at %lld, duplicated at %lld\n", (long long)lseek(again, 0, SEEK_CUR),
           (long long)lseek(dup(fd), 0, SEEK_CUR));
    dup2(fd, 30), dup2(directory, 31);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    lseek(30, 0, SEEK_SET);
    char closed[10];
    snprintf(closed, sizeof closed, "%d", fd);
    fflush(stdout);
    execl("/proc/self/exe", "file_descriptors", root, "executed", closed, NULL);
    die("execl");
}

static void executed(int closed) {
    printf("after exec in %s, 30 is %s, 31 is %s\n", here(), link_of_fd(30), link_of_fd(31));
    tell_rest("30", 30);
    printf("31: %s\n", first_line(31, "small.txt"));
    printf("closed on exec: %s\n", said(fcntl(closed, F_GETFD)));
    int fd = open("a/small.txt", O_RDONLY);
    fflush(stdout);
    dup2(fd, 0);
    execl("/bin/sh", "sh", "-c", "cat; cat /proc/self/fd/30 | wc -c; cd a/b; pwd; readlink /proc/self/fd/31", NULL);
    die("execl sh");
}

int main(int argc, char **argv) {
    begin();
    if (argc < 2) return 98;
    root = argv[1];
    if (argc > 3) executed(atoi(argv[3]));
    entering();
    int directory = open("a", O_RDONLY | O_DIRECTORY), path = open("a", O_PATH), link = open("links/directory", O_PATH);
    relative_to("a directory", directory);
    relative_to("a path", path);
    relative_to("a path that a link led to", link);
    if (chdir("a") < 0) die("chdir a");
    relative_to("the working directory", AT_FDCWD);
    if (chdir("..") < 0) die("chdir ..");
    relative_to("a file", open("a/small.txt", O_RDONLY));
    relative_to("nothing", 999);
    empty_path("a directory", directory);
    empty_path("a path", path);
    empty_path("a file", open("a/small.txt", O_RDONLY));
    empty_path("a file's path", open("a/small.txt", O_PATH));
    empty_path("a link's path", open("links/absolute", O_PATH | O_NOFOLLOW));
    printf("opened from a path: %s\n", first_line(path, "small.txt"));
    threads();
    resolving(directory);
    changing_hands();
    return 0;
}
