/* file_making DIRECTORY: makes, links, renames and removes entries in every way, and what each must be refused. */
#include "files.h"
#include <sys/sysmacros.h>

static int place;

static void told(const char *what, const char *name, long result) {
    const char *text = said(result);
    printf("%s: %s; %s is %s\n", what, text, name, made_text(name));
}

static void write_to(const char *name, const char *text) {
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) < 0) die(name);
    close(fd);
}

static const char *read_from(const char *name) {
    static char buffers[4][100];
    static int next;
    char *buffer = buffers[next++ & 3];
    int fd = open(name, O_RDONLY);
    ssize_t size = fd < 0 ? -1 : read(fd, buffer, 99);
    if (size < 0) return said(-1);
    buffer[size] = 0;
    close(fd);
    return buffer;
}

static long opened(const char *name, int flags, mode_t mode) {
    int fd = open(name, flags | O_CLOEXEC, mode);
    if (fd >= 0) close(fd);
    return fd;
}

static void creating(void) {
    printf("# open\n");
    const struct { const char *what; int flags; mode_t mode; } ways[] = {
        {"absent", O_RDWR, 0}, {"new", O_RDWR | O_CREAT, 0640}, {"again", O_RDWR | O_CREAT, 0600},
        {"exclusive", O_RDWR | O_CREAT | O_EXCL, 0600}, {"truncated", O_WRONLY | O_TRUNC, 0},
        {"truncated for reading", O_RDONLY | O_TRUNC, 0}, {"as a directory", O_RDONLY | O_DIRECTORY, 0},
        {"created as a directory", O_RDONLY | O_CREAT | O_DIRECTORY, 0600}, {"append", O_WRONLY | O_APPEND, 0},
        {"neither", O_WRONLY | O_RDWR, 0},
    };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        told(ways[i].what, "file", opened("file", ways[i].flags, ways[i].mode));
        if (i == 3) write_to("file", "contents");
    }
    const mode_t modes[] = {0, 0400, 0222, 0777, 04755, 02755, 01777, 06777}, masks[] = {0, 022, 077, 0777};
    for (size_t i = 0; i < 8; i++)
        for (size_t each = 0; each < 4; each++) {
            char name[40];
            umask(masks[each]);
            snprintf(name, sizeof name, "mode-%o-mask-%o", modes[i], masks[each]);
            told("created", name, opened(name, O_WRONLY | O_CREAT | O_EXCL, modes[i]));
            snprintf(name, sizeof name, "directory-%o-mask-%o", modes[i], masks[each]);
            told("made", name, mkdir(name, modes[i]));
        }
    umask(022);
    told("creat", "creat", opened("creat", O_WRONLY | O_CREAT | O_TRUNC, 0604));
    tell("below a file", opened("file/x", O_CREAT, 0600));
    tell("in nothing", opened("nothing/x", O_CREAT, 0600));
    tell("with a slash", opened("new/", O_CREAT | O_WRONLY, 0600));
    tell("empty", opened("", O_CREAT, 0600));
    char name[300];
    memset(name, 'n', 299);
    name[256] = 0;
    printf("256 bytes: %s, ", said(opened(name, O_CREAT, 0600)));
    name[255] = 0;
    printf("255 bytes: %s\n", said(opened(name, O_CREAT, 0600)));
    told("not UTF-8", "\xc3\x28\xff", opened("\xc3\x28\xff", O_CREAT | O_EXCL, 0600));
    symlink("target", "link"), symlink("file", "to-file");
    told("through a dangling link", "target", opened("link", O_WRONLY | O_CREAT, 0600));
    symlink("nowhere", "dangling");
    told("exclusively through one", "dangling", opened("dangling", O_WRONLY | O_CREAT | O_EXCL, 0600));
    told("not following it", "dangling", opened("dangling", O_WRONLY | O_CREAT | O_NOFOLLOW, 0600));
    told("a directory for writing", ".", opened(".", O_WRONLY, 0));
    int fd = open(".", O_TMPFILE | O_RDWR, 0600);
    /* Not every file system has files without a name. */
    printf("without a name: %s\n", fd >= 0 || errno == EOPNOTSUPP || errno == EISDIR ? "made or not supported" : said(fd));
    if (fd >= 0) close(fd);
}

static void list(const char *what, DIR *directory) {
    int count = 0;
    if (!directory) die(what);
    for (errno = 0; readdir(directory); errno = 0) count++;
    printf("%s: %d entries, %s\n", what, count, said(errno ? -1 : 0));
    closedir(directory);
}

/* What can still be done with a directory that has no name any more. */
static void gone_directory(int gone) {
    struct stat of;
    char name[40], text[200];
    printf("it has %lu links, ", fstat(gone, &of) < 0 ? 99UL : (unsigned long)of.st_nlink);
    printf("by an empty path %s, ", said(fstatat(gone, "", &of, AT_EMPTY_PATH)));
    printf("itself %s, something in it %s\n", said(fstatat(gone, ".", &of, 0)), said(fstatat(gone, "x", &of, 0)));
    printf("its mode: %s, ", said(fchmod(gone, 0711)));
    printf("then %o\n", fstat(gone, &of) < 0 ? 0 : of.st_mode);
    list("listed", fdopendir(dup(gone)));
    snprintf(name, sizeof name, "/proc/self/fd/%d", gone);
    ssize_t size = readlink(name, text, sizeof text);
    printf("its name: %.*s, opened anew: %s\n", (int)(size < 0 ? 0 : size), text, said(opened(name, O_RDONLY, 0)));
    tell("entered", fchdir(gone));
    printf("getcwd: %s, ", getcwd(text, sizeof text) ? text : said(-1));
    list("listed there", opendir("."));
    tell("made there", opened("x", O_CREAT | O_RDWR, 0600));
    fchdir(place);
}

static void directories(void) {
    printf("# mkdir, rmdir\n");
    told("mkdir", "d", mkdir("d", 0750));
    told("again", "d", mkdir("d", 0700));
    told("in nothing", "nothing/d", mkdir("nothing/d", 0700));
    told("below a file", "file/d", mkdir("file/d", 0700));
    told("over a dangling link", "dangling", mkdir("dangling", 0700));
    told("with a slash", "e", mkdir("e/", 0700));
    told("dot", "d/.", mkdir("d/.", 0700));
    told("by descriptor", "d/f", mkdirat(open("d", O_RDONLY), "f", 0711));
    tell("not empty", rmdir("d"));
    tell("dot", rmdir("d/f/."));
    tell("dots", rmdir("d/f/.."));
    tell("file", rmdir("file"));
    tell("nothing", rmdir("nothing"));
    told("unlink", "e", unlink("e"));
    told("unlinkat", "d/f", unlinkat(open("d", O_RDONLY), "f", AT_REMOVEDIR));
    symlink("d", "to-d");
    tell("through a link", rmdir("to-d"));
    tell("with a slash", rmdir("to-d/"));
    told("set-group-ID", "d", chmod("d", 02775));
    told("inherits", "d/inherits", (chown("d", 0, 4242), mkdir("d/inherits", 0755)));
    told("inherits", "d/file", opened("d/file", O_CREAT, 0644));
    int gone = open("e", O_RDONLY);
    told("removed while open", "e", rmdir("e"));
    tell("made in it", mkdirat(gone, "x", 0700));
    gone_directory(gone);
    mkdir("e", 0700);
    if (chdir("e") < 0) die("chdir");
    printf("the working directory goes: %s\n", said(rmdir("../e")));
    char here[200];
    printf("getcwd: %s\n", getcwd(here, sizeof here) ? here : said(-1));
    tell("made in it", mkdir("x", 0700));
    fchdir(place);
}

static void nodes(void) {
    printf("# mknod\n");
    told("file", "n-file", mknod("n-file", S_IFREG | 0640, 0));
    told("fifo", "n-fifo", mknod("n-fifo", S_IFIFO | 0620, 0));
    told("fifo again", "n-fifo", mkfifo("n-fifo", 0600));
    told("socket", "n-socket", mknod("n-socket", S_IFSOCK | 0600, 0));
    told("device", "n-device", mknod("n-device", S_IFCHR | 0600, makedev(1, 7)));
    told("block device", "n-block", mknod("n-block", S_IFBLK | 0600, makedev(300, 70000)));
    struct stat of;
    if (lstat("n-block", &of) < 0) die("lstat");
    printf("device %d:%d\n", major(of.st_rdev), minor(of.st_rdev));
    told("directory", "n-directory", mknod("n-directory", S_IFDIR | 0600, 0));
    told("by descriptor", "n-at", mknodat(place, "n-at", S_IFIFO | 0600, 0));
}

/* Somebody who has both ends of a FIFO waits for nobody. */
static void both_ends(void) {
    char text[40] = "";
    mkfifo("pipe", 0600);
    int both = open("pipe", O_RDWR | O_CLOEXEC);
    tell("reading and writing", both);
    int reader = open("pipe", O_RDONLY | O_NONBLOCK | O_CLOEXEC), writer = open("pipe", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    printf("written: %s, ", said(write(both, "one", 3)));
    printf("read: %s, %s\n", said(read(reader, text, 39)), text);
    printf("written: %s, ", said(write(writer, "two", 3)));
    printf("read: %s, %s\n", said(read(both, text, 39)), text);
    tell("nothing is there", read(reader, text, 39));
    struct pollfd state = {.fd = both, .events = POLLIN | POLLOUT};
    printf("poll: %d, ", poll(&state, 1, 0));
    printf("events %x\n", state.revents);
    close(both), close(reader), close(writer);
    told("it stays", "pipe", 0);
}

static void linking(void) {
    printf("# link, symlink, unlink\n");
    write_to("one", "one");
    told("link", "two", link("one", "two"));
    told("again", "two", link("one", "two"));
    told("of nothing", "three", link("nothing", "three"));
    told("of a directory", "three", link("d", "three"));
    told("of a link", "three", link("to-file", "three"));
    told("of what it leads to", "four", linkat(AT_FDCWD, "to-file", place, "four", AT_SYMLINK_FOLLOW));
    char name[40];
    int fd = open("one", O_RDONLY);
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    told("of a descriptor", "five", linkat(AT_FDCWD, name, place, "five", AT_SYMLINK_FOLLOW));
    told("of a descriptor, empty path", "six", linkat(fd, "", place, "six", AT_EMPTY_PATH));
    close(fd);
    write_to("two", "changed");
    printf("one: %s\n", read_from("one"));
    told("unlink", "one", unlink("one"));
    told("then", "two", 0);
    told("symlink", "s", symlink("any text/../at//all", "s"));
    told("again", "s", symlink("x", "s"));
    told("empty", "s-empty", symlink("", "s-empty"));
    char target[100];
    ssize_t size = readlink("s", target, sizeof target);
    printf("it says: %.*s\n", (int)size, target);
    told("absolute", "s-absolute", symlinkat("/srv/data/a/small.txt", place, "s-absolute"));
    printf("through it: %s", read_from("s-absolute"));
    told("unlink a link", "s", unlink("s"));
    tell("unlink: a directory", unlink("d"));
    tell("nothing", unlink("nothing"));
    tell("below a file", unlink("two/x"));
    tell("with a slash", unlink("two/"));
    fd = open("two", O_RDWR);
    printf("unlink while open: %s, ", said(unlink("two")));
    struct stat of;
    printf("still %s bytes, ", fstat(fd, &of) == 0 && of.st_size == 7 ? "7" : "other");
    tell("write", pwrite(fd, "after", 5, 7));
    tell("truncate", ftruncate(fd, 9));
    lseek(fd, 0, SEEK_SET);
    tell_rest("its contents", fd);
    close(fd);
    fd = open("/tmp", O_RDONLY | O_DIRECTORY);
    tell("link from elsewhere", link("/etc/passwd", "passwd"));
    tell("to elsewhere", linkat(place, "file", fd, "conformance-never-there", 0));
}

static void renaming(void) {
    printf("# rename\n");
    write_to("from", "from"), write_to("over", "over");
    int fd = open("over", O_RDONLY);
    told("over another", "over", rename("from", "over"));
    printf("it says %s, what was open says ", read_from("over"));
    tell_rest("", fd);
    told("nothing", "from", rename("from", "x"));
    told("to itself", "over", rename("over", "over"));
    told("to nowhere", "over", rename("over", "nothing/x"));
    mkdir("r", 0700), mkdir("r/inside", 0700), mkdir("empty", 0700), write_to("r/file", "x");
    told("into a directory", "r/over", rename("over", "r/over"));
    told("a directory", "q", rename("r", "q"));
    told("into itself", "q", rename("q", "q/inside/q"));
    told("over a full one", "q", rename("empty", "q"));
    told("over an empty one", "empty", rename("q", "empty"));
    told("a file over a directory", "file", rename("file", "empty"));
    told("a directory over a file", "empty", rename("empty", "file"));
    told("dot", "empty", rename("empty/.", "x"));
    told("with slashes", "slashes", rename("empty/", "slashes/"));
    told("a file with a slash", "file", rename("file", "file-2/"));
    symlink("slashes", "to-slashes");
    told("a link, not what it leads to", "moved-link", rename("to-slashes", "moved-link"));
    link("file", "hard");
    told("over a link of its own", "hard", rename("file", "hard"));
    write_to("a", "a"), write_to("b", "b");
    printf("not over: %s", said(exchange(place, "a", place, "b", RENAME_NOREPLACE)));
    printf(", exchanged: %s", said(exchange(place, "a", place, "b", RENAME_EXCHANGE)));
    printf(", a says %s, b says %s\n", read_from("a"), read_from("b"));
    printf("a file and a directory exchanged: %s", said(exchange(place, "a", place, "slashes", RENAME_EXCHANGE)));
    printf(", a is %s, in it %s\n", made_text("a"), made_text("a/over"));
    printf("both: %s\n", said(exchange(place, "a", place, "b", RENAME_EXCHANGE | RENAME_NOREPLACE)));
    told("not over, to a new name", "c", exchange(place, "b", place, "c", RENAME_NOREPLACE));
    int into = open("a", O_RDONLY | O_DIRECTORY);
    told("by descriptors", "a/d", renameat(place, "c", into, "d"));
    fd = open("a/d", O_RDONLY);
    char name[40], target[100];
    rename("a/d", "a/e");
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(name, target, sizeof target);
    printf("what is open is now %.*s\n", (int)(size < 0 ? 0 : size), target);
    if (chdir("a") < 0 || rename("../a", "../z") < 0) die("rename of the working directory");
    printf("the working directory is now %s\n", getcwd(target, sizeof target) ? target : said(-1));
    printf("relative in it: %s\n", made_text("e"));
    fchdir(place);
    printf("from elsewhere: %s", said(rename("/etc/passwd", "passwd")));
    printf(", to elsewhere: %s\n", said(rename("z/e", "/tmp/conformance-never-there")));
    printf("to a volume: %s\n", said(rename("z/e", "/srv/volume/never-there")));
}

int main(int argc, char **argv) {
    begin();
    if (argc < 2 || chdir(argv[1]) < 0) return 98;
    umask(022);
    place = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    creating();
    directories();
    nodes();
    both_ends();
    linking();
    renaming();
    return 0;
}
