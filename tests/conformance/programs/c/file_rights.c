/* file_rights ROOT DIRECTORY: what the rights of the target's process allow: to root all, to others what modes say. */
#include "files.h"

static char *root;

static void tried(const char *name) {
    char *path = joined(root, name);
    struct stat of = {0};
    printf("%s: stat %s", name, said(stat(path, &of)));
    int fd = -1;
    /* What is no file or directory may keep one waiting. */
    if (S_ISREG(of.st_mode) || S_ISDIR(of.st_mode)) {
        fd = open(path, O_RDONLY);
        printf(", open %s", said(fd));
        char one;
        if (fd >= 0 && S_ISREG(of.st_mode)) printf(", read %s", said(read(fd, &one, 1)));
        close(fd);
        fd = open(path, O_WRONLY);
        printf(", for writing %s", said(fd));
        close(fd);
    }
    for (int mode = 0; mode <= 7; mode++) printf("%s %s", mode ? "" : ", access", said(access(path, mode)));
    printf(", chdir %s\n", said(chdir(path)));
    free(path);
}

int main(int argc, char **argv) {
    begin();
    if (argc < 3) return 98;
    root = argv[1];
    const char *names[] = {"a/small.txt", "modes/none", "modes/only-execute", "modes/read-only", "modes/all",
                           "modes/sticky-directory/inside", "modes/private-directory", "modes/private-directory/inside",
                           "modes/unsearchable-directory", "modes/unsearchable-directory/inside", "owners/someone",
                           "owners/theirs", "owners/theirs/file", "owners/theirs/nothing", "owners/group/file", "special/fifo",
                           "special/socket", "modes/private-directory/nothing", "links/relative"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) tried(names[i]);
    if (chdir(argv[2]) < 0) die("chdir");
    umask(022);
    printf("in a directory of others: %s", said(mkdir("of-others/new", 0755)));
    printf(", %s", said(open("of-others/new", O_CREAT | O_WRONLY, 0644)));
    printf(", %s", said(unlink("of-others/file")));
    printf(", %s\n", said(rename("of-others/file", "own/file")));
    printf("in one of one's own: %s", said(mkdir("own/new", 0755)));
    printf(", %s", said(open("own/file", O_CREAT | O_WRONLY, 0644)));
    printf(", %s", said(symlink("x", "own/link")));
    printf(", %s\n", said(mkfifo("own/fifo", 0600)));
    printf("made: %s", made_text("own/new"));
    printf(", %s", made_text("own/file"));
    printf(", %s\n", made_text("own/link"));
    tell("chmod", chmod("own/file", 0600));
    tell("chmod of others", chmod("of-others/file", 0666));
    tell("chown", chown("own/file", 0, -1));
    tell("to a group of its own", chown("own/file", -1, 3000));
    tell("to another", chown("own/file", -1, 4000));
    printf("times of others: %s", said(utimensat(AT_FDCWD, "of-others/file", NULL, 0)));
    struct timespec both[2] = {{.tv_sec = 1}, {.tv_sec = 2}};
    printf(", set: %s\n", said(utimensat(AT_FDCWD, "of-others/writable", both, 0)));
    printf("where anyone may write: %s", said(open("sticky/new", O_CREAT | O_WRONLY, 0600)));
    printf(", remove of others: %s", said(unlink("sticky/file")));
    printf(", of one's own: %s\n", said(unlink("sticky/new")));
    printf("attribute: %s", said(setxattr("of-others/file", "user.a", "x", 1, 0)));
    printf(", trusted: %s\n", said(setxattr("own/file", "trusted.a", "x", 1, 0)));
    printf("link to others: %s\n", said(link("of-others/file", "own/hard")));
    return 0;
}
