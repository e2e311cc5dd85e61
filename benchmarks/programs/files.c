/* What files cost: files DIRECTORY
 *
 * DIRECTORY has small/0, small/1, … (up to 999), lone/0/file, lone/1/file, …, big, and many/ with many entries. Nothing
 * of it was read before. Prints lines "WORDS NUMBER": nanoseconds of a call or of several together, bytes per second,
 * seconds. */
#include "common.h"
#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define MOST_SMALL 1000
#define WARM_CALLS 2000
#define CHUNK (1u << 20)

static char path[4096];

static const char *in(const char *directory, const char *name)
{
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

/* stat, open, read, close of each small file once: the median. `pattern` gives a file's name by its number. */
static void cold(const char *directory, const char *what, const char *pattern)
{
    static uint64_t spent[MOST_SMALL];
    size_t count = 0;
    char name[32], buffer[4096];
    struct stat facts;
    for (; count < MOST_SMALL; count++) {
        snprintf(name, sizeof name, pattern, count);
        uint64_t start = now_ns();
        if (stat(in(directory, name), &facts) != 0)
            break;
        int file = (int)checked("open", open(path, O_RDONLY | O_CLOEXEC));
        if (read(file, buffer, sizeof buffer) != facts.st_size)
            fail("read");
        close(file);
        spent[count] = now_ns() - start;
    }
    if (!count)
        fail(path);
    printf("%s %.1f\n", what, (double)quantile(spent, count, 0.5));
}

static void warm(const char *directory)
{
    char buffer[4096];
    struct stat facts;
    int file = (int)checked("open", open(in(directory, "small/0"), O_RDONLY | O_CLOEXEC));
    uint64_t start = now_ns();
    for (int i = 0; i < WARM_CALLS; i++)
        checked("pread", pread(file, buffer, sizeof buffer, 0));
    printf("pread %.1f\n", (double)(now_ns() - start) / WARM_CALLS);
    start = now_ns();
    for (int i = 0; i < WARM_CALLS; i++)
        checked("fstat", fstat(file, &facts));
    printf("fstat %.1f\n", (double)(now_ns() - start) / WARM_CALLS);
    close(file);
    start = now_ns();
    for (int i = 0; i < WARM_CALLS; i++)
        checked("stat", stat(path, &facts));
    printf("stat %.1f\n", (double)(now_ns() - start) / WARM_CALLS);
    start = now_ns();
    for (int i = 0; i < WARM_CALLS; i++) {
        file = (int)checked("open", open(path, O_RDONLY | O_CLOEXEC));
        checked("read", read(file, buffer, sizeof buffer));
        close(file);
    }
    printf("warm small file %.1f\n", (double)(now_ns() - start) / WARM_CALLS);
}

static double rate(int file, char *buffer)
{
    uint64_t start = now_ns(), bytes = 0;
    ssize_t got;
    while ((got = pread(file, buffer, CHUNK, (off_t)bytes)) > 0)
        bytes += (uint64_t)got;
    checked("read", got);
    return (double)bytes * 1e9 / (double)(now_ns() - start);
}

static void big(const char *directory)
{
    char *buffer = malloc(CHUNK);
    int file = (int)checked("open", open(in(directory, "big"), O_RDONLY | O_CLOEXEC));
    printf("sequential read %.0f\n", rate(file, buffer));
    printf("the same again %.0f\n", rate(file, buffer));
    struct stat facts;
    checked("fstat", fstat(file, &facts));
    volatile uint64_t sum = 0;
    uint64_t start = now_ns();
    const char *mapped = mmap(NULL, (size_t)facts.st_size, PROT_READ, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED)
        fail("mmap");
    for (off_t i = 0; i < facts.st_size; i += 4096)
        sum += (unsigned char)mapped[i];
    printf("mapped %.0f\n", (double)facts.st_size * 1e9 / (double)(now_ns() - start));
    close(file);
    free(buffer);
}

/* Every name and its attributes. */
static void listing(const char *directory)
{
    struct stat facts;
    uint64_t start = now_ns();
    DIR *entries = opendir(in(directory, "many"));
    if (!entries)
        fail(path);
    unsigned long count = 0;
    for (struct dirent *entry; (entry = readdir(entries)); count++)
        checked("fstatat", fstatat(dirfd(entries), entry->d_name, &facts, AT_SYMLINK_NOFOLLOW));
    closedir(entries);
    printf("listing %.6f\n", (double)(now_ns() - start) / 1e9);
    start = now_ns();
    entries = opendir(path);
    while (readdir(entries))
        ;
    closedir(entries);
    printf("names alone %.6f\n", (double)(now_ns() - start) / 1e9);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        usage("files DIRECTORY");
    cold(argv[1], "cold lone file", "lone/%zu/file");
    cold(argv[1], "cold small file", "small/%zu");
    warm(argv[1]);
    big(argv[1]);
    listing(argv[1]);
    return 0;
}
