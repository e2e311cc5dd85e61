/* What the programs that work on files share: names for the errnos of files, one line per observation. */
#ifndef FILES_H
#define FILES_H
#include "conformance.h"
#include <dirent.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <linux/fs.h>

#ifndef O_TMPFILE
#error "_GNU_SOURCE is needed"
#endif

static inline const char *said(long result) {
    if (result >= 0) return "OK";
    switch (errno) {
    case EEXIST: return "EEXIST";
    case EFAULT: return "EFAULT";
    case EISDIR: return "EISDIR";
    case ELOOP: return "ELOOP";
    case EMLINK: return "EMLINK";
    case ENAMETOOLONG: return "ENAMETOOLONG";
    case ENODATA: return "ENODATA";
    case ENODEV: return "ENODEV";
    case ENOEXEC: return "ENOEXEC";
    case ENOSPC: return "ENOSPC";
    case ENOSYS: return "ENOSYS";
    case ENOTDIR: return "ENOTDIR";
    case ENOTEMPTY: return "ENOTEMPTY";
    case ENOTTY: return "ENOTTY";
    case ENXIO: return "ENXIO";
    case EOVERFLOW: return "EOVERFLOW";
    case ERANGE: return "ERANGE";
    case EROFS: return "EROFS";
    case ESPIPE: return "ESPIPE";
    case ETXTBSY: return "ETXTBSY";
    case EXDEV: return "EXDEV";
    case EBUSY: return "EBUSY";
    case EFBIG: return "EFBIG";
    case E2BIG: return "E2BIG";
    default: return errno_name(errno);
    }
}

/* One line for one call: arguments of a printf are evaluated in no certain order. */
static inline void tell(const char *what, long result) { printf("%s: %s\n", what, said(result)); }

/* FNV-1a, to be told of contents in one word. */
static inline uint64_t digest(uint64_t so_far, const void *data, size_t size) {
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++) so_far = (so_far ^ bytes[i]) * 0x100000001b3ULL;
    return so_far;
}
#define DIGEST_START 0xcbf29ce484222325ULL

/* The rest of a descriptor: how many bytes and which. */
static inline void tell_rest(const char *what, int fd) {
    static char buffer[65536];
    uint64_t sum = DIGEST_START;
    long long size = 0;
    ssize_t now;
    while ((now = read(fd, buffer, sizeof buffer)) > 0) sum = digest(sum, buffer, now), size += now;
    if (now < 0) printf("%s: %s after %lld bytes\n", what, said(now), size);
    else printf("%s: %lld bytes, %016llx\n", what, size, (unsigned long long)sum);
}

static inline const char *kind(mode_t mode) {
    switch (mode & S_IFMT) {
    case S_IFREG: return "file";
    case S_IFDIR: return "directory";
    case S_IFLNK: return "link";
    case S_IFIFO: return "fifo";
    case S_IFSOCK: return "socket";
    case S_IFCHR: return "character device";
    case S_IFBLK: return "block device";
    default: return "unknown";
    }
}

/* All of a status that is the same each time; a directory's size is the file system's affair. */
static inline const char *status_text(const struct stat *of) {
    static char buffers[4][300];
    static int next;
    char *buffer = buffers[next++ & 3];
    snprintf(buffer, 300, "%s %o %u:%u %lu links, %lld bytes, modified %lld.%09ld", kind(of->st_mode),
             of->st_mode & 07777, of->st_uid, of->st_gid, (unsigned long)of->st_nlink,
             S_ISDIR(of->st_mode) ? 0LL : (long long)of->st_size, (long long)of->st_mtim.tv_sec,
             of->st_mtim.tv_nsec);
    return buffer;
}

/* The same without times, for what was just made. */
static inline const char *made_text(const char *path) {
    static char buffers[4][200];
    static int next;
    char *buffer = buffers[next++ & 3];
    struct stat of;
    if (lstat(path, &of) < 0) snprintf(buffer, 200, "%s", said(-1));
    else
        snprintf(buffer, 200, "%s %o %u:%u %lu links, %lld bytes", kind(of.st_mode), of.st_mode & 07777, of.st_uid,
                 of.st_gid, (unsigned long)of.st_nlink, S_ISDIR(of.st_mode) ? 0LL : (long long)of.st_size);
    return buffer;
}

/* A private directory on this machine, in both worlds outside of the tree that programs are given. */
static inline const char *scratch(void) {
    static char path[] = "/tmp/conformance-files-XXXXXX";
    if (!mkdtemp(path)) die("mkdtemp");
    return path;
}

static inline int exchange(int directory, const char *from, int other, const char *to, unsigned flags) {
    return syscall(SYS_renameat2, directory, from, other, to, flags);
}

static inline char *joined(const char *directory, const char *name) {
    char *path;
    if (asprintf(&path, "%s/%s", directory, name) < 0) die("asprintf");
    return path;
}
#endif
