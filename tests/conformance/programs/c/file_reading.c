/* file_reading ROOT: every way to read a file. */
#include "files.h"
#include <limits.h>
#include <sys/file.h>
#include <sys/sendfile.h>

static char *root;

static int opened(const char *name, int flags) {
    char *path = joined(root, name);
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0) printf("%s: %s\n", path, said(fd));
    free(path);
    return fd;
}

static void tell_bytes(const char *what, const void *data, ssize_t size) {
    if (size < 0) printf("%s: %s\n", what, said(size));
    else printf("%s: %zd bytes, %016llx\n", what, size, (unsigned long long)digest(DIGEST_START, data, size));
}

static char buffer[1 << 20];

static void by_calls(const char *name) {
    int fd = opened(name, O_RDONLY);
    if (fd < 0) return;
    printf("# %s\n", name);
    struct stat of;
    printf("fstat: %s\n", fstat(fd, &of) < 0 ? said(-1) : status_text(&of));
    tell_rest("read", fd);
    printf("at the end: %ld\n", (long)read(fd, buffer, 10));
    tell_bytes("pread at 0", buffer, pread(fd, buffer, 1000, 0));
    tell_bytes("pread at 4095", buffer, pread(fd, buffer, 4098, 4095));
    tell_bytes("pread beyond", buffer, pread(fd, buffer, 10, 1LL << 40));
    printf("pread before: %s\n", said(pread(fd, buffer, 10, -1)));
    printf("position: %lld\n", (long long)lseek(fd, 0, SEEK_CUR));
    printf("seek: %lld", (long long)lseek(fd, 3, SEEK_SET));
    printf(", %lld", (long long)lseek(fd, -1, SEEK_CUR));
    printf(", %s", said(lseek(fd, -1, SEEK_SET)));
    printf(", %lld\n", (long long)lseek(fd, -2, SEEK_END));
    tell_rest("from two before the end", fd);
    lseek(fd, 1, SEEK_SET);
    char one[3], two[5000], three[100];
    struct iovec parts[] = {{one, 3}, {two, 5000}, {three, 100}};
    ssize_t size = readv(fd, parts, 3);
    printf("readv: %zd, begins %02x\n", size, size > 0 ? (unsigned char)one[0] : 0);
    size = preadv(fd, parts, 3, 2);
    printf("preadv: %zd, begins %02x\n", size, size > 0 ? (unsigned char)one[0] : 0);
    printf("bad pointer: %s\n", said(syscall(SYS_pread64, fd, (char *)16, 10L, 0L)));
    printf("write: %s, truncate: %s\n", said(write(fd, "x", 1)), said(ftruncate(fd, 0)));
    printf("fsync: %s, fdatasync: %s\n", said(fsync(fd)), said(fdatasync(fd)));
    printf("advice: %d, readahead: %s\n", posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL), said(readahead(fd, 0, 100000)));
    printf("flags: %s\n", (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY ? "read only" : "other");
    printf("terminal: %s\n", said(isatty(fd) ? 0 : -1));
    close(fd);
}

static void by_mapping(const char *name) {
    int fd = opened(name, O_RDONLY);
    struct stat of;
    if (fd < 0 || fstat(fd, &of) < 0) return;
    printf("# %s, mapped\n", name);
    size_t size = of.st_size;
    char *shared = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    char *private = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    char *at_once = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    char *writable = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    printf("shared and writable: %s\n", writable == MAP_FAILED ? said(-1) : "OK");
    /* Mappings outlive the descriptor. */
    close(fd);
    if (shared == MAP_FAILED || private == MAP_FAILED || at_once == MAP_FAILED) die("mmap");
    tell_bytes("shared", shared, size);
    tell_bytes("populated", at_once, size);
    printf("advice: %s\n", said(madvise(shared, size, MADV_WILLNEED)));
    /* From the end, so that nothing is read ahead. */
    unsigned last = 0;
    for (size_t at = size; at >= 4096; at -= 4096) last = last * 31 + (unsigned char)private[at - 1];
    printf("backwards: %08x\n", last);
    private[0] ^= 1;
    printf("private write: %s\n", private[0] == shared[0] ? "shown" : "private");
    size_t beyond = (4096 - size % 4096) % 4096, zeros = 0;
    for (size_t i = 0; i < beyond; i++) zeros += shared[size + i] == 0;
    printf("zero beyond the end: %s\n", zeros == beyond ? "yes" : "no");
    pid_t child = fork();
    if (child == 0) _exit((unsigned char)shared[size / 2]);
    int status;
    waitpid(child, &status, 0);
    printf("in a child: %d\n", WEXITSTATUS(status));
    munmap(shared, size);
    munmap(private, size);
    munmap(at_once, size);
}

/* All of a file through a pipe of the kernel's. */
static void by_splice(const char *name) {
    int ends[2], fd = opened(name, O_RDONLY);
    if (fd < 0 || pipe(ends) < 0) return;
    uint64_t sum = DIGEST_START;
    long long total = 0;
    ssize_t moved;
    while ((moved = splice(fd, NULL, ends[1], NULL, 65536, 0)) > 0)
        for (ssize_t left = moved; left > 0;) {
            ssize_t now = read(ends[0], buffer, left);
            if (now <= 0) die("read from the pipe");
            sum = digest(sum, buffer, now), total += now, left -= now;
        }
    printf("splice: %s, %lld bytes, %016llx\n", said(moved), total, (unsigned long long)sum);
    loff_t at = 4000;
    moved = splice(fd, &at, ends[1], NULL, 1000, 0);
    printf("splice at an offset: %zd, then at %lld\n", moved, (long long)at);
    close(fd), close(ends[0]), close(ends[1]);
}

static void by_sendfile(const char *name, int to_socket) {
    int ends[2], fd = opened(name, O_RDONLY);
    if (fd < 0) return;
    if (to_socket ? socketpair(AF_UNIX, SOCK_STREAM, 0, ends) : pipe(ends)) die("two ends");
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        off_t at = 0;
        while (sendfile(ends[1], fd, &at, 1 << 20) > 0) continue;
        _exit(0);
    }
    close(ends[1]);
    tell_rest(to_socket ? "sendfile to a socket" : "sendfile to a pipe", ends[0]);
    waitpid(child, NULL, 0);
    close(ends[0]), close(fd);
}

static void to_local_file(const char *name) {
    char *path = joined(scratch(), "copy");
    int fd = opened(name, O_RDONLY), copy = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || copy < 0) die("copying");
    off_t at = 0;
    while (sendfile(copy, fd, &at, 1 << 20) > 0) continue;
    lseek(copy, 0, SEEK_SET);
    tell_rest("sendfile to a file", copy);
    if (ftruncate(copy, 0) < 0) die("ftruncate");
    lseek(copy, 0, SEEK_SET);
    /* Between file systems of different kinds the kernel says EXDEV; what is certain is that it never says 0. */
    loff_t from = 0;
    ssize_t moved = copy_file_range(fd, &from, copy, NULL, 1000, 0);
    printf("copy_file_range: %s\n", moved == 1000 || (moved < 0 && errno == EXDEV) ? "as one may expect" : said(moved));
    close(fd), close(copy);
    unlink(path);
    *strrchr(path, '/') = 0;
    rmdir(path);
}

static void by_stdio(void) {
    char *path = joined(root, "text/3/3.txt"), *line = NULL;
    FILE *file = fopen(path, "r");
    size_t room = 0;
    int lines = 0;
    uint64_t sum = DIGEST_START;
    ssize_t size;
    while (file && (size = getline(&line, &room, file)) > 0) sum = digest(sum, line, size), lines++;
    printf("stdio: %d lines, %016llx, at %ld\n", lines, (unsigned long long)sum, file ? ftell(file) : -1);
    if (!file) return;
    fseek(file, -6, SEEK_END);
    printf("its end: %s", fgets(buffer, 100, file));
    rewind(file);
    printf("its beginning: %s", fgets(buffer, 100, file));
    fclose(file);
}

static void locks(void) {
    int fd = opened("a/small.txt", O_RDONLY), other = opened("a/small.txt", O_RDONLY);
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    printf("read lock: %s\n", said(fcntl(fd, F_SETLK, &lock)));
    lock.l_type = F_WRLCK;
    printf("write lock without writing: %s\n", said(fcntl(fd, F_SETLK, &lock)));
    printf("flock: %s\n", said(flock(fd, LOCK_EX | LOCK_NB)));
    printf("of another: %s, shared: ", said(flock(other, LOCK_EX | LOCK_NB)));
    printf("%s\n", said(flock(other, LOCK_SH | LOCK_NB)));
    close(fd);
    printf("after the first has gone: %s\n", said(flock(other, LOCK_EX | LOCK_NB)));
    close(other);
}

static void holes(void) {
    int fd = opened("a/holes", O_RDONLY);
    struct stat of;
    fstat(fd, &of);
    printf("# holes: %lld bytes\n", (long long)of.st_size);
    tell_bytes("in a hole", buffer, pread(fd, buffer, 100000, 1000000));
    tell_bytes("at the end of one", buffer, pread(fd, buffer, 100, 3 * 1024 * 1024 - 50));
    tell_rest("all", fd);
    printf("data beyond the end: %s\n", said(lseek(fd, of.st_size, SEEK_DATA)));
    printf("hole after the end of data: %lld\n", (long long)lseek(fd, of.st_size - 1, SEEK_HOLE));
    close(fd);
}

int main(int argc, char **argv) {
    begin();
    if (argc < 2) return 98;
    root = argv[1];
    by_calls("a/small.txt");
    by_calls("a/empty");
    by_calls("a/page");
    by_calls("a/odd");
    by_calls("a/big.bin");
    by_calls("links/chain-1");
    by_mapping("a/odd");
    by_mapping("a/big.bin");
    by_splice("a/big.bin");
    by_sendfile("a/big.bin", 0);
    by_sendfile("a/big.bin", 1);
    to_local_file("a/odd");
    by_stdio();
    locks();
    holes();
    int fd = opened("a", O_RDONLY);
    printf("read of a directory: %s\n", said(read(fd, buffer, 10)));
    printf("mmap of a directory: %s\n", said(mmap(NULL, 10, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0));
    close(fd);
    fd = opened("a/small.txt", O_RDONLY | O_NONBLOCK | O_NOATIME | O_SYNC);
    printf("with more flags: %s\n", fcntl(fd, F_GETFL) & O_NONBLOCK ? "non-blocking" : "blocking");
    tell_rest("read", fd);
    return 0;
}
