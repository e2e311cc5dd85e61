/* file_walk ROOT: directories, read in every way that there is. */
#include "files.h"
#include <ftw.h>
#include <stdarg.h>
#include <glob.h>
#ifdef __GLIBC__
#include <fts.h>
#endif

static char *root;
static int compare(const void *one, const void *other) { return strcmp(*(char **)one, *(char **)other); }

/* Names come in no order that anyone promises: lines are collected, sorted, then printed. */
static char *lines[20000];
static int count;

static void keep(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    if (count == 20000 || vasprintf(&lines[count++], format, arguments) < 0) die("too many lines");
    va_end(arguments);
}

/* Prints what was kept, or, of much, only how much and what it comes to. */
static void tell_kept(const char *what, int most) {
    qsort(lines, count, sizeof *lines, compare);
    uint64_t sum = DIGEST_START;
    for (int i = 0; i < count; i++) sum = digest(sum, lines[i], strlen(lines[i]) + 1);
    printf("%s: %d, %016llx\n", what, count, (unsigned long long)sum);
    for (int i = 0; i < count; i++) {
        if (count <= most) printf("  %s\n", lines[i]);
        free(lines[i]);
    }
    count = 0;
}

static const char *type_text(unsigned char type) { return type == DT_UNKNOWN ? "unknown" : kind(DTTOIF(type)); }

static void listed(const char *name) {
    char *path = joined(root, name);
    DIR *directory = opendir(path);
    if (!directory) {
        printf("%s: %s\n", name, said(-1));
        return;
    }
    struct dirent *entry;
    int same = 0, dots = 0;
    while ((entry = readdir(directory))) {
        struct stat of;
        if (entry->d_name[0] == '.' && (!entry->d_name[1] || !strcmp(entry->d_name, ".."))) dots++;
        else if (fstatat(dirfd(directory), entry->d_name, &of, AT_SYMLINK_NOFOLLOW) < 0) die(entry->d_name);
        else {
            same += of.st_ino == entry->d_ino;
            keep("%s %s %o", entry->d_name, type_text(entry->d_type), of.st_mode);
        }
    }
    int all = count;
    tell_kept(name, 60);
    printf("  %d dots, inode numbers %s\n", dots, same == all ? "as in their status" : "other than in their status");
    /* Once more from the beginning, and from a place in between. */
    rewinddir(directory);
    long places[4000], numbers = 0;
    char *names[4000];
    while (places[numbers] = telldir(directory), (entry = readdir(directory))) names[numbers++] = strdup(entry->d_name);
    printf("  again: %ld", numbers);
    for (int part = 1; part < 4; part++) {
        long at = numbers * part / 4;
        seekdir(directory, places[at]);
        entry = readdir(directory);
        printf(", %s", entry && !strcmp(entry->d_name, names[at]) ? "found" : "lost");
    }
    seekdir(directory, places[numbers]);
    printf(", %s\n", readdir(directory) ? "more" : "end");
    closedir(directory);
    free(path);
}

/* The call itself, with room for a few entries at a time, two descriptors in turn. */
static void in_small_steps(const char *name) {
    char *path = joined(root, name), buffer[400];
    int fds[2] = {open(path, O_RDONLY | O_DIRECTORY), open(path, O_RDONLY | O_DIRECTORY)}, numbers[2] = {0, 0};
    for (int left = 3; left;)
        for (int which = 0; which < 2; which++) {
            long size = left & 1 << which ? syscall(SYS_getdents64, fds[which], buffer, sizeof buffer) : 0;
            if (size < 0) die("getdents64");
            if (size == 0) left &= ~(1 << which);
            for (long at = 0; at < size; at += *(unsigned short *)(buffer + at + 16), numbers[which]++)
                if (!which && buffer[at + 19] != '.') keep("%s", buffer + at + 19);
        }
    printf("%d and %d in small steps\n", numbers[0], numbers[1]);
    tell_kept(name, 0);
    printf("no room at all: %s\n", said((lseek(fds[0], 0, SEEK_SET), syscall(SYS_getdents64, fds[0], buffer, 10))));
    lseek(fds[0], 0, SEEK_SET);
    printf("bad pointer: %s\n", said(syscall(SYS_getdents64, fds[0], 16, 4096)));
    close(fds[0]), close(fds[1]);
    int file = open(joined(root, "a/small.txt"), O_RDONLY);
    printf("of a file: %s\n", said(syscall(SYS_getdents64, file, buffer, sizeof buffer)));
    close(file);
}

static int visit(const char *path, const struct stat *of, int type, struct FTW *at) {
    if (strlen(path) > 300) return 0;
    keep("%s type %d level %d base %d mode %o", path, type, at->level, at->base, type == FTW_NS ? 0 : of->st_mode);
    return 0;
}

static void walked(const char *name, int flags, const char *how) {
    char *path = joined(root, name);
    int result = nftw(path, visit, 10, flags);
    printf("nftw %s, %s: %s\n", name, how, said(result));
    tell_kept("visited", 30);
}

#ifdef __GLIBC__
static int by_name(const FTSENT **one, const FTSENT **other) { return strcmp((*one)->fts_name, (*other)->fts_name); }

static void with_fts(const char *name, int options, const char *how) {
    char *paths[] = {joined(root, name), NULL};
    FTS *walk = fts_open(paths, options, by_name);
    FTSENT *entry;
    int kinds[20] = {0};
    uint64_t sum = DIGEST_START;
    while (walk && (entry = fts_read(walk))) {
        kinds[entry->fts_info]++;
        sum = digest(sum, entry->fts_path, entry->fts_pathlen);
        /* Where it goes by itself, the name leads there. */
        if (!(options & FTS_NOCHDIR) && entry->fts_info == FTS_F && access(entry->fts_accpath, F_OK) < 0) kinds[19]++;
    }
    printf("fts %s, %s: %s, %016llx, kinds", name, how, said(errno ? -1 : 0), (unsigned long long)sum);
    for (int i = 0; i < 20; i++) printf(" %d", kinds[i]);
    printf("\n");
    if (walk) fts_close(walk);
}
#endif

static void globbed(const char *pattern, int flags) {
    glob_t found;
    int result = glob(joined(root, pattern), flags, NULL, &found);
    printf("glob %s: %d\n", pattern, result);
    for (size_t i = 0; !result && i < found.gl_pathc; i++) keep("%s", found.gl_pathv[i]);
    if (!result) globfree(&found);
    tell_kept("matched", 12);
}

static int wanted(const struct dirent *entry) { return entry->d_name[0] == 'e'; }

int main(int argc, char **argv) {
    begin();
    if (argc < 2) return 98;
    root = argv[1];
    const char *names[] = {"a", "links", "special", "names", "modes", "many", "text/3", "../volume", "nothing",
                           "a/small.txt", "links/directory", "links/loop-1", "links/root/srv/data/a/b"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) listed(names[i]);
    in_small_steps("many");
    struct dirent **found;
    int number = scandir(joined(root, "many"), &found, wanted, alphasort);
    printf("scandir: %d, first %s, last %s\n", number, found[0]->d_name, found[number - 1]->d_name);
    DIR *directory = fdopendir(open(joined(root, "text"), O_RDONLY | O_DIRECTORY));
    for (struct dirent *entry; (entry = readdir(directory));) keep("%s", entry->d_name);
    tell_kept("fdopendir", 10);
    walked("links", FTW_PHYS, "physical");
    walked("text", 0, "logical");
    walked("text", FTW_PHYS | FTW_CHDIR, "changing directories");
    walked("modes", FTW_PHYS | FTW_DEPTH, "depth first");
#ifdef __GLIBC__
    with_fts("text", FTS_PHYSICAL, "physical");
    with_fts("cycles", FTS_LOGICAL | FTS_NOCHDIR, "logical");
    with_fts(".", FTS_PHYSICAL | FTS_NOSTAT, "without status");
    with_fts("a", FTS_PHYSICAL | FTS_SEEDOT | FTS_NOCHDIR, "with dots");
    globbed("{a,text/1}/*[0-9l].txt", GLOB_BRACE);
#endif
    globbed("*/s*", 0);
    globbed("text/*/1?.txt", GLOB_MARK);
    globbed("links/*/c/deep.txt", 0);
    globbed("links/d*", GLOB_MARK);
    return 0;
}
