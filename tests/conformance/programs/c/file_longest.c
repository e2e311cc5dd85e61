/* file_longest ROOT: goes down the chain of directories at whose end a path is about as long as it may be. */
#include "files.h"
#include <limits.h>

int main(int argc, char **argv) {
    begin();
    if (argc < 2) return 98;
    char path[PATH_MAX + 10];
    snprintf(path, sizeof path, "%s/longest", argv[1]);
    for (;;) {
        DIR *directory = opendir(path);
        if (!directory) break;
        struct dirent *entry;
        char name[300] = "";
        while ((entry = readdir(directory)))
            if (entry->d_name[0] != '.') snprintf(name, sizeof name, "%s", entry->d_name);
        closedir(directory);
        if (!name[0]) break;
        strcat(path, "/");
        strcat(path, name);
    }
    printf("the longest path: %zu bytes\n", strlen(path));
    struct stat of;
    tell("stat", stat(path, &of));
    tell("lstat", lstat(path, &of));
    tell("access", access(path, R_OK));
    tell("no link", readlink(path, (char[10]){0}, 10));
    tell("no directory", chdir(path));
    tell("getxattr", getxattr(path, "user.nothing", NULL, 0));
    int fd = open(path, O_RDONLY);
    tell_rest("its contents", fd);
    char target[PATH_MAX], link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, target, sizeof target);
    printf("its descriptor's link: %s\n", size < 0 ? said(-1) : (size_t)size == strlen(path) ? "as long" : "other");
    /* One directory up, relative to which all is short again. */
    char *last = strrchr(path, '/');
    *last = 0;
    printf("its directory: %s\n", said(chdir(path)));
    printf("getcwd there: %s\n", getcwd(target, sizeof target) ? (strcmp(target, path) ? "other" : "right") : said(-1));
    printf("relative: %s\n", said(open(last + 1, O_RDONLY)));
    printf("a name that is not there: %s\n", said(open("nothing-of-this-name", O_RDONLY)));
    return 0;
}
