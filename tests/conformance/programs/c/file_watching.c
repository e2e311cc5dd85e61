/* file_watching DIRECTORY: what inotify says of each thing that the program itself does there. */
#include "files.h"
#include <sys/inotify.h>

static int watch, on_directory, on_file;

/* What is to be read now: a program's own doings are reported before the call that does them returns. */
static void events(const char *what) {
    static const struct { uint32_t bit; const char *name; } bits[] = {
        {IN_ACCESS, "access"}, {IN_MODIFY, "modify"}, {IN_ATTRIB, "attrib"}, {IN_CLOSE_WRITE, "close-write"},
        {IN_CLOSE_NOWRITE, "close"}, {IN_OPEN, "open"}, {IN_MOVED_FROM, "from"}, {IN_MOVED_TO, "to"},
        {IN_CREATE, "create"}, {IN_DELETE, "delete"}, {IN_DELETE_SELF, "delete-self"}, {IN_MOVE_SELF, "move-self"},
        {IN_ISDIR, "(directory)"}, {IN_IGNORED, "ignored"},
    };
    char buffer[8192] __attribute__((aligned(8)));
    uint32_t cookie = 0;
    printf("%s:", what);
    for (ssize_t size; (size = read(watch, buffer, sizeof buffer)) > 0;)
        for (char *at = buffer; at < buffer + size; at += sizeof(struct inotify_event) + ((struct inotify_event *)at)->len) {
            struct inotify_event *event = (void *)at;
            printf(" [%s", event->wd == on_directory ? "directory" : event->wd == on_file ? "file" : "other");
            for (size_t i = 0; i < sizeof bits / sizeof *bits; i++)
                if (event->mask & bits[i].bit) printf(" %s", bits[i].name);
            if (event->len) printf(" %s", event->name);
            if (event->cookie) printf(" %s", event->cookie == cookie ? "same" : "new");
            cookie = event->cookie;
            printf("]");
        }
    printf("\n");
}

int main(int argc, char **argv) {
    begin();
    if (argc < 2 || chdir(argv[1]) < 0) return 98;
    umask(022);
    watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    int fd = open("file", O_RDWR | O_CREAT, 0644);
    close(fd);
    on_directory = inotify_add_watch(watch, argv[1], IN_ALL_EVENTS);
    on_file = inotify_add_watch(watch, "file", IN_ALL_EVENTS);
    tell("watched", on_directory < 0 || on_file < 0 ? -1 : 0);
    tell("nothing", inotify_add_watch(watch, "nothing", IN_ALL_EVENTS));
    tell("a file as a directory", inotify_add_watch(watch, "file", IN_OPEN | IN_ONLYDIR));
    symlink("file", "link");
    printf("through a link: %s\n", inotify_add_watch(watch, "link", IN_ALL_EVENTS) == on_file ? "the same" : "another");
    events("symlink");
    fd = open("file", O_RDWR);
    events("open");
    if (write(fd, "text", 4) != 4) die("write");
    events("write");
    char buffer[10];
    if (pread(fd, buffer, 4, 0) != 4) die("pread");
    events("read");
    fchmod(fd, 0600);
    events("fchmod");
    close(fd);
    events("close");
    close(open("file", O_RDONLY));
    events("open and close");
    mkdir("made", 0755);
    events("mkdir");
    rename("file", "made/file");
    events("rename away");
    rename("made/file", "again");
    events("rename back");
    rename("again", "other");
    events("rename");
    link("other", "hard");
    events("link");
    truncate("other", 1);
    events("truncate");
    utimensat(AT_FDCWD, "other", NULL, 0);
    events("utimensat");
    unlink("hard");
    events("unlink");
    unlink("other");
    events("unlink the last");
    rmdir("made");
    events("rmdir");
    close(open("new", O_WRONLY | O_CREAT | O_EXCL, 0600));
    events("create");
    tell("no longer watched", inotify_rm_watch(watch, on_directory));
    events("the end");
    return 0;
}
