/* file_setting DIRECTORY: sets modes, owners, sizes, times and attributes, by path, by link and by descriptor. */
#include "files.h"
#include <sys/time.h>
#include <utime.h>

static int place, fd;

static void told(const char *what, const char *name, long result) {
    const char *text = said(result);
    printf("%s: %s; %s is %s\n", what, text, name, made_text(name));
}

static void timed(const char *what, const char *name, long result) {
    const char *text = said(result);
    struct stat of;
    if (lstat(name, &of) < 0) die(name);
    printf("%s: %s; %s accessed %lld.%09ld modified %lld.%09ld\n", what, text, name, (long long)of.st_atim.tv_sec,
           of.st_atim.tv_nsec, (long long)of.st_mtim.tv_sec, of.st_mtim.tv_nsec);
}

/* Whether a change is seen in the time of modification, which was long ago. */
static void moved(const char *what, const struct stat *before, const char *name) {
    struct stat now;
    if (lstat(name, &now) < 0) die(name);
    int modified = memcmp(&before->st_mtim, &now.st_mtim, sizeof now.st_mtim);
    printf("%s: %s\n", what, modified ? "modified" : "as before");
}

static void modes(void) {
    printf("# modes\n");
    for (mode_t mode = 07777; mode; mode = (mode - 1) & 06521) told("chmod", "file", chmod("file", mode));
    told("with more bits", "file", chmod("file", 0100644));
    told("fchmod", "file", fchmod(fd, 0600));
    told("fchmodat", "file", fchmodat(place, "file", 0640, 0));
    told("through a link", "file", chmod("link", 0644));
    told("of a link itself", "link", fchmodat(place, "link", 0600, AT_SYMLINK_NOFOLLOW));
    told("directory", "directory", chmod("directory", 01755));
    told("nothing", "nothing", chmod("nothing", 0600));
    told("below a file", "file", chmod("file/x", 0600));
    told("dangling", "dangling", chmod("dangling", 0600));
    chmod("file", 06755);
    if (pwrite(fd, "x", 1, 0) < 0) die("pwrite");
    /* As root the bits stay. */
    told("after a write", "file", 0);
}

static void owners(void) {
    printf("# owners\n");
    told("chown", "file", chown("file", 1234, 5678));
    told("user only", "file", chown("file", 4321, -1));
    told("group only", "file", chown("file", -1, 8765));
    told("neither", "file", chown("file", -1, -1));
    told("large", "file", chown("file", 4000000000U, 4000000001U));
    told("fchown", "file", fchown(fd, 7, 8));
    told("fchownat", "file", fchownat(place, "file", 9, 10, 0));
    told("empty path", "file", fchownat(fd, "", 11, 12, AT_EMPTY_PATH));
    told("through a link", "file", chown("link", 13, 14));
    told("lchown", "link", lchown("link", 15, 16));
    told("fchownat of a link", "link", fchownat(place, "link", 17, 18, AT_SYMLINK_NOFOLLOW));
    told("and then", "file", 0);
    told("directory", "directory", chown("directory", 19, 20));
    chmod("file", 06755);
    told("set-id bits go", "file", chown("file", 21, 22));
    told("nothing", "nothing", chown("nothing", 1, 1));
    told("dangling", "dangling", chown("dangling", 1, 1));
    told("lchown of a dangling link", "dangling", lchown("dangling", 1, 1));
}

static void sizes(void) {
    printf("# sizes\n");
    if (pwrite(fd, "0123456789", 10, 0) != 10) die("pwrite");
    told("shorter", "file", truncate("file", 5));
    told("longer", "file", truncate("file", 10000));
    lseek(fd, 0, SEEK_SET);
    tell_rest("contents", fd);
    told("ftruncate", "file", ftruncate(fd, 3));
    told("through a link", "file", truncate("link", 4));
    lseek(fd, 0, SEEK_SET);
    tell_rest("contents", fd);
    told("very long", "file", truncate("file", 1LL << 40));
    told("nothing left", "file", truncate("file", 0));
    told("negative", "file", truncate("file", -1));
    told("directory", "directory", truncate("directory", 0));
    told("nothing", "nothing", truncate("nothing", 0));
    int reading = open("file", O_RDONLY);
    told("by a reader", "file", ftruncate(reading, 0));
    close(reading);
}

static void times(void) {
    printf("# times\n");
    struct timespec both[2] = {{.tv_sec = 1000000000, .tv_nsec = 123456789}, {.tv_sec = 1100000000, .tv_nsec = 987654321}};
    timed("utimensat", "file", utimensat(place, "file", both, 0));
    struct timespec one[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 7, .tv_nsec = 1}};
    timed("modified only", "file", utimensat(place, "file", one, 0));
    one[0] = (struct timespec){.tv_sec = 8, .tv_nsec = 2}, one[1].tv_nsec = UTIME_OMIT;
    timed("accessed only", "file", utimensat(place, "file", one, 0));
    one[0].tv_nsec = UTIME_OMIT;
    timed("neither", "file", utimensat(place, "file", one, 0));
    timed("futimens", "file", futimens(fd, both));
    both[1].tv_sec = -5;
    timed("before the epoch", "file", futimens(fd, both));
    both[1].tv_sec = 6000000000;
    timed("far in the future", "file", futimens(fd, both));
    timed("of a link", "link", utimensat(place, "link", both, AT_SYMLINK_NOFOLLOW));
    timed("of a directory", "directory", utimensat(place, "directory", both, 0));
    struct utimbuf seconds = {.actime = 11, .modtime = 12};
    timed("utime", "file", utime("file", &seconds));
    struct timeval micro[2] = {{.tv_sec = 13, .tv_usec = 5}, {.tv_sec = 14, .tv_usec = 6}};
    timed("utimes through a link", "file", utimes("link", micro));
    timed("lutimes", "link", lutimes("link", micro));
    timed("futimesat", "file", syscall(SYS_futimesat, place, "file", micro));
    both[0].tv_nsec = 1000000000;
    timed("too many nanoseconds", "file", utimensat(place, "file", both, 0));
    printf("nothing: %s\n", said(utimensat(place, "nothing", NULL, 0)));
    struct stat before;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    lstat("file", &before);
    printf("now: %s", said(utimensat(place, "file", NULL, 0)));
    struct stat after;
    lstat("file", &after);
    printf(", %s\n", llabs((long long)after.st_mtim.tv_sec - now.tv_sec) < 10 ? "as the clock says" : "another time");
    one[0] = (struct timespec){.tv_nsec = UTIME_NOW}, one[1] = (struct timespec){.tv_sec = 20};
    printf("one of them now: %s", said(futimens(fd, one)));
    lstat("file", &after);
    printf(", %s and %lld\n", llabs((long long)after.st_atim.tv_sec - now.tv_sec) < 10 ? "now" : "not now",
           (long long)after.st_mtim.tv_sec);

    struct timespec old[2] = {{.tv_sec = 100}, {.tv_sec = 100}};
    futimens(fd, old), lstat("file", &before);
    if (pwrite(fd, "x", 1, 0) < 0) die("pwrite");
    moved("a write", &before, "file");
    utimensat(place, "directory", old, 0), lstat("directory", &before);
    mkdir("directory/new", 0700);
    moved("a new entry", &before, "directory");
    utimensat(place, "directory", old, 0), lstat("directory", &before);
    rmdir("directory/new");
    moved("an entry gone", &before, "directory");
}

static void attributes(void) {
    printf("# attributes\n");
    char value[4096], list[4096];
    printf("none: %s, list %ld\n", said(getxattr("file", "user.a", value, sizeof value)), (long)listxattr("file", list, 4096));
    tell("set", setxattr("file", "user.a", "one", 3, 0));
    tell("empty", setxattr("file", "user.b", "", 0, XATTR_CREATE));
    tell("big", setxattr("file", "user.c", memset(value, 'c', 4096), 4096, 0));
    tell("create again", setxattr("file", "user.a", "x", 1, XATTR_CREATE));
    tell("replace nothing", setxattr("file", "user.no", "x", 1, XATTR_REPLACE));
    tell("by descriptor", fsetxattr(fd, "user.a", "two\0three", 9, XATTR_REPLACE));
    tell("through a link", setxattr("link", "trusted.d", "trusted", 7, 0));
    ssize_t size = getxattr("file", "user.a", value, sizeof value);
    printf("get: %ld, %016llx\n", (long)size, (unsigned long long)digest(DIGEST_START, value, size < 0 ? 0 : size));
    printf("size only: %ld, too small: %s, by link %ld, by descriptor %ld\n", (long)getxattr("file", "user.c", NULL, 0),
           said(getxattr("file", "user.c", value, 10)), (long)getxattr("link", "trusted.d", value, 4096),
           (long)fgetxattr(fd, "user.b", value, 4096));
    size = listxattr("file", list, sizeof list);
    int found[4] = {0};
    for (ssize_t at = 0; at < size; at += strlen(list + at) + 1)
        for (int i = 0; i < 4; i++) found[i] += !strcmp(list + at, (char *[]){"user.a", "user.b", "user.c", "trusted.d"}[i]);
    printf("list: %ld bytes, %d %d %d %d, too small: %s, size only %ld\n", (long)size, found[0], found[1], found[2], found[3],
           said(listxattr("file", list, 5)), (long)listxattr("file", NULL, 0));
    tell("of a link itself", lsetxattr("link", "user.a", "x", 1, 0));
    tell("another kind", lsetxattr("link", "trusted.a", "x", 1, 0));
    printf("of a directory: %s\n", said(setxattr("directory", "user.z", "x", 1, 0)));
    tell("unknown kind", setxattr("file", "nonsense", "x", 1, 0));
    tell("no name", setxattr("file", "", "x", 1, 0));
    tell("remove", removexattr("file", "user.a"));
    tell("again", removexattr("file", "user.a"));
    tell("by descriptor", fremovexattr(fd, "user.c"));
    tell("of a link", lremovexattr("link", "trusted.a"));
    printf("left: %ld\n", (long)listxattr("file", list, sizeof list));
}

int main(int argc, char **argv) {
    begin();
    if (argc < 2 || chdir(argv[1]) < 0) return 98;
    umask(022);
    place = open(".", O_RDONLY | O_DIRECTORY);
    fd = open("file", O_RDWR | O_CREAT, 0644);
    if (symlink("file", "link") < 0 || symlink("nowhere", "dangling") < 0 || mkdir("directory", 0755) < 0) die("start");
    modes();
    owners();
    sizes();
    times();
    attributes();
    /* What is left is looked at from the pod, so its times are set. */
    struct timespec last[2] = {{.tv_sec = 500}, {.tv_sec = 500, .tv_nsec = 5}};
    const char *names[] = {"file", "link", "dangling", "directory", "."};
    for (int i = 0; i < 5; i++) utimensat(place, names[i], last, AT_SYMLINK_NOFOLLOW);
    return 0;
}
