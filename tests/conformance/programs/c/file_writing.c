/* file_writing DIRECTORY: every way to write a file, and what other descriptors, mappings and processes see of it. */
#include "files.h"
#include <pthread.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>

static char data[1 << 20];

static void contents(const char *name) {
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) die(name);
    tell_rest(name, fd);
    close(fd);
}

static int created(const char *name, int flags) {
    int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | flags, 0644);
    if (fd < 0) die(name);
    return fd;
}

static long long size_of(int fd) {
    struct stat of;
    return fstat(fd, &of) < 0 ? -1 : (long long)of.st_size;
}

static void by_calls(void) {
    printf("# calls\n");
    int fd = created("calls", 0), other = open("calls", O_RDONLY);
    printf("write: %ld", (long)write(fd, data, 5000));
    printf(", size %lld\n", size_of(fd));
    printf("another sees %lld\n", size_of(other));
    tell_rest("and reads", other);
    printf("pwrite: %ld", (long)pwrite(fd, "middle", 6, 2500));
    printf(", position %lld\n", (long long)lseek(fd, 0, SEEK_CUR));
    struct iovec parts[] = {{"one", 3}, {data, 70000}, {"three", 5}};
    printf("writev: %ld\n", (long)writev(fd, parts, 3));
    printf("pwritev: %ld\n", (long)pwritev(fd, parts, 3, 1));
    printf("beyond the end: %ld\n", (long)pwrite(fd, "far", 3, 200000));
    contents("calls");
    char one[20];
    printf("the other now: %ld", (long)pread(other, one, 6, 200000 - 3));
    printf(", %.3s\n", one + 3);
    tell("write by a reader", write(other, "x", 1));
    printf("nothing: %ld\n", (long)write(fd, "", 0));
    tell("bad pointer", syscall(SYS_pwrite64, fd, (char *)16, 10L, 0L));
    tell("read by a writer", read(open("calls", O_WRONLY), one, 1));
    tell("fsync", fsync(fd));
    tell("fdatasync", fdatasync(fd));
    tell("sync_file_range", sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE));
    tell("syncfs", syncfs(fd));
    close(fd), close(other);
    contents("calls");
}

static void much(void) {
    printf("# much\n");
    int fd = created("much", O_TRUNC);
    for (int i = 0; i < 6; i++)
        if (write(fd, data, sizeof data) != sizeof data) die("write");
    if (pwrite(fd, data, 300001, 4095) != 300001) die("pwrite");
    for (int i = 0; i < 500; i++)
        if (pwrite(fd, "tiny", 4, i * 977) != 4) die("pwrite");
    close(fd);
    contents("much");
    fd = open("much", O_RDWR | O_SYNC);
    printf("synchronously: %ld\n", (long)write(fd, data, 100000));
    close(fd);
    contents("much");
}

static void appending(void) {
    printf("# append\n");
    int fd = created("log", O_APPEND);
    printf("append: %ld\n", (long)write(fd, "first\n", 6));
    /* A position does not count (pwrite(2), BUGS). */
    printf("pwrite: %ld\n", (long)pwrite(fd, "second\n", 7, 0));
    int children = 4;
    for (int child = 0; child < children; child++)
        if (fork() == 0) {
            int own = open("log", O_WRONLY | O_APPEND);
            for (int i = 0; i < 50; i++)
                if (write(i & 1 ? fd : own, "a line of text\n", 15) != 15) _exit(1);
            _exit(0);
        }
    for (int status; children; children--)
        if (wait(&status) < 0 || status) printf("a child failed\n");
    contents("log");
    int plain = open("log", O_WRONLY);
    printf("set later: %s", said(fcntl(plain, F_SETFL, O_APPEND)));
    printf(", %ld\n", (long)write(plain, "last\n", 5));
    close(plain), close(fd);
    contents("log");
}

static void mapped(void) {
    printf("# mapped\n");
    int fd = created("mapped", 0);
    tell("size", ftruncate(fd, 300000));
    char *map = mmap(NULL, 300000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) die("mmap");
    memcpy(map + 100, data, 200000);
    strcpy(map + 299990, "end");
    char one[10] = "";
    printf("read after a store: %ld", (long)pread(fd, one, 4, 299990));
    printf(", %s\n", one);
    printf("store after a write: %ld ", (long)pwrite(fd, "written", 7, 0));
    printf("%.7s\n", map);
    tell("msync", msync(map, 300000, MS_SYNC));
    if (fork() == 0) {
        memcpy(map + 250000, "from a child", 12);
        _exit(0);
    }
    wait(NULL);
    printf("of a child: %.12s\n", map + 250000);
    close(fd);
    memcpy(map + 260000, "after close", 11);
    munmap(map, 300000);
    contents("mapped");
}

static void between_files(void) {
    printf("# from file to file\n");
    int from = created("from", 0), to = created("to", 0), ends[2];
    if (write(from, data, 500000) != 500000) die("write");
    loff_t at = 1000;
    long copied = 0;
    for (ssize_t now; copied < 400000 && (now = copy_file_range(from, &at, to, NULL, 400000 - copied, 0)) > 0;) copied += now;
    printf("copy_file_range: %ld\n", copied);
    off_t offset = 5;
    lseek(to, 7, SEEK_SET);
    printf("sendfile: %ld", (long)sendfile(to, from, &offset, 1000));
    printf(", then at %lld\n", (long long)offset);
    if (pipe(ends) < 0 || write(ends[1], "through a pipe", 14) != 14) die("pipe");
    at = 3;
    printf("splice: %ld\n", (long)splice(ends[0], NULL, to, &at, 14, 0));
    close(to);
    contents("to");
#ifdef __GLIBC__
    /* Where the file system has no such call glibc writes; FUSE from Python has none. */
    printf("posix_fallocate: %d", posix_fallocate(from, 600000, 5000));
    printf(", size %lld\n", size_of(from));
#endif
    /* Sharing of blocks is refused by most file systems, under different names. */
    printf("clone: %s\n", ioctl(created("clone", 0), FICLONE, from) < 0 ? "refused" : "done");
    close(from);
    contents("from");
}

static void locks(void) {
    printf("# locks\n");
    int fd = created("lock", 0);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 5};
    tell("write lock", fcntl(fd, F_SETLK, &lock));
    fflush(stdout);
    if (fork() == 0) {
        int own = open("lock", O_RDWR);
        tell("of another process", fcntl(own, F_SETLK, &lock));
        fcntl(own, F_GETLK, &lock);
        printf("held by %s from %lld for %lld\n", lock.l_pid == getppid() ? "the parent" : "another", (long long)lock.l_start,
               (long long)lock.l_len);
        lock = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 15};
        tell("beside it", fcntl(own, F_SETLK, &lock));
        tell("flock", flock(own, LOCK_EX | LOCK_NB));
        struct flock open_file = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 5};
        tell("of an open file", fcntl(own, F_OFD_SETLK, &open_file));
        _exit(0);
    }
    wait(NULL);
    int own = open("lock", O_RDWR);
    close(own);
    /* POSIX: closing any descriptor of a file gives up the process's locks. */
    if (fork() == 0) {
        own = open("lock", O_RDWR);
        tell("after any close", fcntl(own, F_SETLK, &lock));
        _exit(0);
    }
    wait(NULL);
    tell("lockf", lockf(fd, F_TLOCK, 5));
    close(fd);
}

static void *writes_a_part(void *argument) {
    long part = (long)argument;
    int fd = open("parts", O_WRONLY | O_CLOEXEC);
    for (int i = 0; i < 16; i++)
        if (pwrite(fd, data + part * 8192, 8192, (i * 4 + part) * 8192) != 8192) die("pwrite");
    close(fd);
    return NULL;
}

static void threads(void) {
    printf("# threads\n");
    pthread_t all[4];
    close(created("parts", 0));
    for (long part = 0; part < 4; part++) pthread_create(&all[part], NULL, writes_a_part, (void *)part);
    for (int part = 0; part < 4; part++) pthread_join(all[part], NULL);
    contents("parts");
}

static void opening(void) {
    printf("# opened again\n");
    int fd = created("again", 0), reader = open("again", O_RDONLY);
    if (write(fd, "0123456789", 10) != 10) die("write");
    int truncating = open("again", O_WRONLY | O_TRUNC);
    char buffer[20];
    printf("after a truncation: size %lld", size_of(reader));
    printf(", read %ld\n", (long)pread(reader, buffer, 20, 0));
    printf("write where it was: %ld", (long)write(fd, "x", 1));
    printf(", size %lld\n", size_of(reader));
    close(truncating);
    char name[30];
    snprintf(name, sizeof name, "/proc/self/fd/%d", reader);
    int writer = open(name, O_WRONLY | O_APPEND);
    printf("a reader opened for writing: %ld\n", (long)write(writer, "more", 4));
    contents("again");
    FILE *stream = fopen("stream", "w+");
    for (int i = 0; i < 5000; i++) fprintf(stream, "line %d\n", i);
    fseek(stream, 100, SEEK_SET);
    fprintf(stream, "HERE");
    fclose(stream);
    contents("stream");
    stream = fopen("stream", "a+x");
    printf("exclusively: %s\n", stream ? "OK" : said(-1));
    stream = fopen("stream", "r+");
    fscanf(stream, "line %4s", buffer);
    fseek(stream, 0, SEEK_CUR);
    fprintf(stream, "[%s]", buffer);
    fclose(stream);
    contents("stream");
    umask(027);
    char made[] = "temporary-XXXXXX";
    fd = mkstemp(made);
    printf("mkstemp: %s, %s\n", said(fd), made_text(made));
    tell("renamed", rename(made, "temporary"));
}

int main(int argc, char **argv) {
    begin();
    if (argc < 2 || chdir(argv[1]) < 0) return 98;
    umask(022);
    for (size_t i = 0; i < sizeof data; i++) data[i] = (char)(i * 2654435761U >> 13);
    by_calls();
    much();
    appending();
    mapped();
    between_files();
    locks();
    threads();
    opening();
    return 0;
}
