/* file_paths ROOT: what each call says to each path: links of every kind, loops, slashes, "..", names too long. */
#include "files.h"
#include <limits.h>
#include <sys/statfs.h>

static char *root;

/* What a path leads to, in as few words as tell it. */
static const char *looked(const char *path, int flags) {
    static char buffers[4][300];
    static int next;
    char *buffer = buffers[next++ & 3];
    struct stat of;
    if (fstatat(AT_FDCWD, path, &of, flags) < 0) snprintf(buffer, 300, "%s", said(-1));
    else if (S_ISDIR(of.st_mode)) snprintf(buffer, 300, "directory %o", of.st_mode & 07777);
    else snprintf(buffer, 300, "%s %o %lld", kind(of.st_mode), of.st_mode & 07777, (long long)of.st_size);
    return buffer;
}

static const char *opened(const char *path, int flags) {
    struct stat of;
    if (fstatat(AT_FDCWD, path, &of, 0) == 0 && !S_ISREG(of.st_mode) && !S_ISDIR(of.st_mode) && !(flags & O_PATH))
        return "-";
    int fd = open(path, flags | O_CLOEXEC);
    const char *result = said(fd);
    if (fd >= 0) close(fd);
    return result;
}

static const char *entered(const char *path) {
    static char buffer[PATH_MAX + 1];
    if (chdir(path) < 0) return said(-1);
    if (!getcwd(buffer, sizeof buffer)) snprintf(buffer, sizeof buffer, "no getcwd: %s", said(-1));
    if (chdir("/") < 0) die("chdir /");
    return buffer;
}

static void look(const char *path) {
    char target[PATH_MAX + 1];
    ssize_t size = readlink(path, target, sizeof target);
    const char *failure = said(size);
    if (strlen(path) <= 300) printf("%s\n", path);
    else printf("%.60s... (%zu bytes)\n", path, strlen(path));
    printf("  stat %s, lstat %s\n", looked(path, 0), looked(path, AT_SYMLINK_NOFOLLOW));
    printf("  open %s, no-follow %s, directory %s, path %s, path no-follow %s\n", opened(path, O_RDONLY),
           opened(path, O_RDONLY | O_NOFOLLOW), opened(path, O_RDONLY | O_DIRECTORY), opened(path, O_PATH),
           opened(path, O_PATH | O_NOFOLLOW));
    printf("  access %s %s %s, link %.*s%s\n", said(access(path, F_OK)), said(access(path, R_OK)),
           said(access(path, X_OK)), (int)(size < 0 ? 0 : size > 100 ? 100 : size), target, size < 0 ? failure : "");
    struct statfs system;
    printf("  chdir %s, statfs %s, getxattr %s\n", entered(path), said(statfs(path, &system)),
           said(getxattr(path, "user.nothing", NULL, 0)));
}

static void below(const char *name) {
    char *path = joined(root, name);
    look(path);
    free(path);
}

/* ROOT/a/../a/../a ... of a length, ending in the name. */
static char *stretched(size_t length, const char *name) {
    char *path = calloc(1, length + 300);
    strcpy(path, root);
    while (strlen(path) + strlen(name) + 7 < length) strcat(path, "/a/..");
    while (strlen(path) + strlen(name) + 1 < length) strcat(path, "/");
    strcat(path, "/");
    strcat(path, name);
    return path;
}

int main(int argc, char **argv) {
    begin();
    if (argc < 2) return 98;
    root = argv[1];
    const char *names[] = {
        "a/small.txt", "a/empty", "a", "a/", "a/.", "a/..", "a/../a/small.txt", "a//small.txt", "a/./small.txt",
        "a/small.txt/", "a/small.txt/.", "a/small.txt/..", "a/small.txt/x", "nothing", "nothing/", "nothing/x",
        "nothing/../a/small.txt", "a/nothing/../small.txt", "links/relative", "links/relative/", "links/relative/x",
        "links/absolute", "links/directory", "links/directory/", "links/directory/.", "links/directory/small.txt",
        "links/directory/../a/small.txt", "links/absolute-directory/c/deep.txt", "links/absolute-directory/..",
        "links/absolute-directory/../small.txt", "links/with-slash", "links/with-slash/odd", "links/chain-1",
        "links/chain-3", "links/above-the-root", "links/root", "links/root/srv/data/a/small.txt", "links/root/srv",
        "links/parent", "links/parent/parent", "links/parent/links/parent/links/relative", "links/dangling",
        "links/dangling/", "links/dangling/x", "links/dangling-absolute", "links/through-file", "links/self",
        "links/self/", "links/self/x", "links/loop-1", "links/long", "links/forty/4", "links/forty/5",
        "links/forty/44", "links/volume", "links/odd-name", "modes/none",
        "modes/private-directory/inside", "modes/unsearchable-directory/inside", "special/fifo",
        "special/socket", "special/socket/x", "names/with space", "names/...",
        "names/-dash", "../../../../../../srv/data/a/small.txt", "../volume/key", "../volume/..data/key",
        "../volume/..", "../volume/../data/a/small.txt", "../../pod-only/one",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) below(names[i]);
    look("/srv");
    look("/");
    look("//srv//data//a//small.txt");
    look("/../../srv/data/a/small.txt");
    look("");

    char name[300];
    memset(name, 'x', 299);
    name[255] = 0;
    char *path = joined(root, "names");
    char *full = joined(path, name);
    look(full);
    free(full);
    name[255] = 'x';
    name[256] = 0;
    full = joined(path, name);
    look(full);
    memset(name, 0xe9, 255);
    name[255] = 0;
    printf("255 bytes that are not UTF-8: %s\n", said(open(joined(path, name), O_RDONLY)));
    printf("not UTF-8: %s\n", said(open(joined(path, "\xff\xfe not UTF-8"), O_RDONLY)));
    printf("not UTF-8, absent: %s\n", said(open(joined(path, "\xff\xfd not UTF-8"), O_RDONLY)));
    printf("inside a directory that is not UTF-8: %s\n", said(open(joined(path, " \xff directory/inside"), O_RDONLY)));
    for (size_t length = 4090; length <= 4100; length++) {
        full = stretched(length, "a/small.txt");
        printf("a path of %zu bytes: %s\n", strlen(full), looked(full, 0));
        free(full);
    }
    printf("bad pointer: %s, %s\n", said(open((char *)16, O_RDONLY)), said(access((char *)-4096, F_OK)));
    printf("bad room for a link: %s\n", said(syscall(SYS_readlink, joined(root, "links/relative"), (char *)16, 10)));
    char small[3];
    printf("little room for a link: %ld\n", (long)readlink(joined(root, "links/relative"), small, 3));
    printf("no room for a link: %s\n", said(readlink(joined(root, "links/relative"), small, 0)));
    return 0;
}
