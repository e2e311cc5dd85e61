/* file_crowd ROOT: six children with four threads each look, read, list and enter at once, each checking what it got. */
#include "files.h"
#include <pthread.h>

enum { CHILDREN = 6, THREADS = 4, ROUNDS = 12 };
static char *root;
static _Atomic int mistakes;

static void wrong(const char *what, const char *name) {
    mistakes++;
    printf("%s %s: %s\n", what, name, errno_name(errno));
}

static void *work(void *argument) {
    unsigned seed = (unsigned)(long)argument;
    char name[300], data[5000], expected[60];
    for (int round = 0; round < ROUNDS; round++) {
        int number = rand_r(&seed) % 40;
        struct stat of, by_descriptor;
        snprintf(name, sizeof name, "%s/%s/text/%d/%d.txt", root, rand_r(&seed) % 2 ? "." : "links/parent", number % 5, number);
        snprintf(expected, sizeof expected, " line 0 of text %d\n", number);
        if (stat(name, &of) < 0) wrong("stat", name);
        int fd = open(name, O_RDONLY | O_CLOEXEC);
        ssize_t size = fd < 0 ? -1 : pread(fd, data, sizeof data - 1, 0);
        if (size < 0 || fstat(fd, &by_descriptor) < 0) wrong("read", name);
        else {
            data[size] = 0;
            if (size != of.st_size || size != by_descriptor.st_size || !strstr(data, expected)) wrong("contents of", name);
        }
        close(fd);
        snprintf(name, sizeof name, "%s/text/%d", root, number % 5);
        DIR *directory = opendir(name);
        int count = 0;
        if (!directory) wrong("opendir", name);
        else {
            while (readdir(directory)) count++;
            closedir(directory);
            if (count != 10) wrong("entries of", name);
        }
        snprintf(name, sizeof name, "%s/nothing-%d", root, number);
        if (stat(name, &of) == 0 || errno != ENOENT) wrong("not absent:", name);
        snprintf(name, sizeof name, "%s/a/odd", root);
        fd = open(name, O_RDONLY | O_CLOEXEC);
        off_t at = rand_r(&seed) % 60000;
        char *map = mmap(NULL, 70001, PROT_READ, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED || pread(fd, data, 5000, at) != 5000 || memcmp(data, map + at, 5000)) wrong("mapping of", name);
        munmap(map, 70001);
        close(fd);
    }
    return NULL;
}

int main(int argc, char **argv) {
    begin();
    if (argc < 2) return 98;
    root = argv[1];
    int well = 0;
    for (int child = 0; child < CHILDREN; child++)
        if (fork() == 0) {
            pthread_t threads[THREADS];
            char where[300];
            snprintf(where, sizeof where, "%s/text/%d", root, child % 5);
            if (chdir(where) < 0) wrong("chdir", where);
            for (long i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, work, (void *)(child * 100 + i));
            for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
            char here[300];
            if (!getcwd(here, sizeof here) || strcmp(here, where)) wrong("getcwd in", where);
            _exit(mistakes ? 1 : 0);
        }
    for (int status; wait(&status) > 0;) well += status == 0;
    printf("%d children, %s\n", CHILDREN, well == CHILDREN ? "all well" : "not all well");
    return 0;
}
