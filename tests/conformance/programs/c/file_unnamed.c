/* file_unnamed DIRECTORY: files without a name, and how they get one; directories whose ACL says what is made there. */
#include "files.h"
#include <linux/openat2.h>

static const char *text_of(int fd) {
    static char buffer[100];
    ssize_t size = pread(fd, buffer, 99, 0);
    if (size < 0) return said(-1);
    buffer[size] = 0;
    return buffer;
}

static int unnamed(const char *what, const char *directory, int flags, mode_t mode) {
    int fd = open(directory, O_TMPFILE | flags, mode);
    struct stat of;
    printf("%s: %s", what, said(fd));
    if (fd >= 0 && fstat(fd, &of) == 0)
        printf(", %s %o, %lu links, %lld bytes", kind(of.st_mode), of.st_mode & 07777, (unsigned long)of.st_nlink,
               (long long)of.st_size);
    printf("\n");
    return fd;
}

static char *way(int fd) {
    char *path;
    if (asprintf(&path, "/proc/self/fd/%d", fd) < 0) die("asprintf");
    return path;
}

static void opening(int place) {
    printf("# opening\n");
    close(unnamed("here", ".", O_RDWR, 0644));
    close(unnamed("with a slash", "below/", O_WRONLY, 0600));
    unnamed("to be read only", ".", O_RDONLY, 0600);
    unnamed("with O_CREAT", ".", O_RDWR | O_CREAT, 0600);
    unnamed("in a file", "file", O_RDWR, 0600);
    unnamed("in nothing", "nothing", O_RDWR, 0600);
    close(unnamed("by a link", "link", O_RDWR, 0600));
    unnamed("by a link that is not followed", "link", O_RDWR | O_NOFOLLOW, 0600);
    const mode_t masks[] = {0, 022, 077, 0777};
    for (int i = 0; i < 4; i++) {
        umask(masks[i]);
        char what[40];
        snprintf(what, sizeof what, "with mask %o", masks[i]);
        close(unnamed(what, ".", O_RDWR, 06777));
    }
    umask(022);
    int fd = openat(place, "below", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    printf("openat: %s, %d\n", said(fd), fd >= 0 ? fcntl(fd, F_GETFD) : -1);
    close(fd);
    struct open_how how = {.flags = O_TMPFILE | O_RDWR, .mode = 0640, .resolve = RESOLVE_NO_SYMLINKS};
    fd = syscall(SYS_openat2, AT_FDCWD, "below", &how, sizeof how);
    printf("openat2: %s\n", said(fd));
    if (fd >= 0) tell("linked", linkat(fd, "", AT_FDCWD, "from openat2", AT_EMPTY_PATH));
    printf("is %s\n", made_text("from openat2"));
    close(fd);
}

static void using(void) {
    printf("# using\n");
    int fd = unnamed("open", ".", O_RDWR, 0600);
    tell("write", write(fd, "contents", 8));
    printf("read: %s\n", text_of(fd));
    tell("ftruncate", ftruncate(fd, 4));
    tell("fchmod", fchmod(fd, 0644));
    struct stat of;
    if (fstat(fd, &of) == 0) printf("is %o, %lld bytes\n", of.st_mode & 07777, (long long)of.st_size);
    char *map = mmap(NULL, 4, PROT_READ, MAP_SHARED, fd, 0);
    printf("mapped: %.4s\n", map == MAP_FAILED ? said(-1) : map);
    int again = open(way(fd), O_RDONLY);
    printf("opened again: %s\n", again < 0 ? said(again) : text_of(again));
    close(again);
    again = open(way(fd), O_RDWR | O_TRUNC);
    if (again >= 0) tell("written there", write(again, "again", 5));
    printf("read: %s\n", text_of(fd));
    char target[4096];
    ssize_t length = readlink(way(fd), target, sizeof target - 1);
    if (length < 0) die("readlink");
    target[length] = 0;
    printf("its name ends in (deleted): %d\n", strstr(target, " (deleted)") != NULL);
    close(again);
    close(fd);
}

static void naming(int place) {
    printf("# naming\n");
    int fd = unnamed("open", ".", O_RDWR, 0640);
    if (write(fd, "named", 5) != 5) die("write");
    tell("access before", access("named", F_OK));
    tell("link", linkat(AT_FDCWD, way(fd), AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    printf("is %s\n", made_text("named"));
    struct stat of;
    if (fstat(fd, &of) == 0) printf("%lu links\n", (unsigned long)of.st_nlink);
    tell("link to what is there", linkat(AT_FDCWD, way(fd), AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    tell("link again", linkat(AT_FDCWD, way(fd), place, "below/again", AT_SYMLINK_FOLLOW));
    printf("is %s\n", made_text("named"));
    int named = open("below/again", O_RDWR);
    printf("reads %s\n", text_of(named));
    if (pwrite(named, "NAMED", 5, 0) != 5) die("pwrite");
    printf("reads %s\n", text_of(fd));
    close(named);
    close(fd);

    fd = unnamed("open", "below", O_RDWR, 0600);
    tell("link of the descriptor", linkat(fd, "", place, "by descriptor", AT_EMPTY_PATH));
    printf("is %s\n", made_text("by descriptor"));
    close(fd);
    fd = unnamed("open exclusively", ".", O_RDWR | O_EXCL, 0600);
    tell("link", linkat(AT_FDCWD, way(fd), AT_FDCWD, "exclusive", AT_SYMLINK_FOLLOW));
    close(fd);
    fd = unnamed("open", ".", O_RDWR, 0600);
    tell("link into nothing", linkat(AT_FDCWD, way(fd), AT_FDCWD, "nothing/x", AT_SYMLINK_FOLLOW));
    tell("link into a file", linkat(AT_FDCWD, way(fd), AT_FDCWD, "file/x", AT_SYMLINK_FOLLOW));
    tell("link by a link", linkat(AT_FDCWD, way(fd), AT_FDCWD, "link/by a link", AT_SYMLINK_FOLLOW));
    printf("is %s\n", made_text("below/by a link"));
    char *elsewhere = joined(scratch(), "x");
    tell("link elsewhere", linkat(AT_FDCWD, way(fd), AT_FDCWD, elsewhere, AT_SYMLINK_FOLLOW));
    close(fd);
    fd = open("file", O_RDONLY);
    tell("removed", unlink("file"));
    tell("link of what was removed", linkat(AT_FDCWD, way(fd), AT_FDCWD, "back", AT_SYMLINK_FOLLOW));
    int again = open(way(fd), O_RDONLY);
    printf("opened again: %s\n", again < 0 ? said(again) : text_of(again));
    close(again);
    close(fd);
}

/* acl(5) as the kernel takes it: version 2, then tag, permissions and id of each entry. */
static void set_default_acl(const char *directory, unsigned owner, unsigned group, unsigned mask, unsigned other) {
    struct { uint32_t version; struct { uint16_t tag, permissions; uint32_t id; } entries[5]; } acl = {
        2, {{0x01, owner, ~0u}, {0x02, 7, 12345}, {0x04, group, ~0u}, {0x10, mask, ~0u}, {0x20, other, ~0u}}};
    printf("acl of %s: %s\n", directory, said(setxattr(directory, "system.posix_acl_default", &acl, sizeof acl, 0)));
}

static void inheriting(void) {
    printf("# default ACLs\n");
    if (mkdir("open", 0755) < 0 || mkdir("closed", 0755) < 0) die("mkdir");
    set_default_acl("open", 7, 7, 7, 7);
    set_default_acl("closed", 6, 0, 5, 1);
    const char *directories[] = {"open", "closed"};
    const mode_t masks[] = {0, 022, 077}, modes[] = {0666, 0640, 0777};
    for (int d = 0; d < 2; d++)
        for (int m = 0; m < 3; m++)
            for (int i = 0; i < 3; i++) {
                char *name;
                umask(masks[m]);
                if (asprintf(&name, "%s/file-%o-%o", directories[d], masks[m], modes[i]) < 0) die("asprintf");
                int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, modes[i]);
                printf("%s: %s\n", name, made_text(name));
                close(fd);
                if (asprintf(&name, "%s/directory-%o-%o", directories[d], masks[m], modes[i]) < 0) die("asprintf");
                mkdir(name, modes[i]);
                printf("%s: %s\n", name, made_text(name));
                if (asprintf(&name, "%s/node-%o-%o", directories[d], masks[m], modes[i]) < 0) die("asprintf");
                mknod(name, S_IFREG | modes[i], 0);
                printf("%s: %s\n", name, made_text(name));
                close(unnamed("unnamed", directories[d], O_RDWR, modes[i]));
            }
    umask(077);
    if (chdir("open") < 0) die("chdir");
    close(creat("relative", 0666));
    printf("relative: %s\n", made_text("relative"));
    int fd = open(".", O_PATH);
    struct open_how how = {.flags = O_CREAT | O_WRONLY, .mode = 0664, .resolve = RESOLVE_BENEATH};
    close(syscall(SYS_openat2, fd, "beneath", &how, sizeof how));
    printf("beneath: %s\n", made_text("beneath"));
    mkdirat(fd, "by descriptor", 0775);
    printf("by descriptor: %s\n", made_text("by descriptor"));
}

int main(int count, char **arguments) {
    if (count != 2 || chdir(arguments[1]) < 0) die("file_unnamed DIRECTORY");
    setvbuf(stdout, NULL, _IOLBF, 0);
    umask(022);
    int place = open(".", O_RDONLY | O_DIRECTORY), fd = open("file", O_WRONLY | O_CREAT, 0644);
    if (mkdir("below", 0755) < 0 || symlink("below", "link") < 0 || write(fd, "file", 4) != 4) die("making");
    close(fd);
    opening(place);
    using();
    naming(place);
    inheriting();
    return 0;
}
