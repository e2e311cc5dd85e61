/* world NAME...: what the process is told about where it is: host name, variables, the names files. */
#include "conformance.h"
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

static void show(const char *path) {
    FILE *file = fopen(path, "r");
    char line[256];
    if (!file) {
        printf("%s: %s\n", path, errno_name(errno));
        return;
    }
    while (fgets(line, sizeof line, file)) printf("%s: %s", path, line);
    struct stat by_descriptor, by_path;
    int same = !fstat(fileno(file), &by_descriptor) && !stat(path, &by_path) &&
               by_descriptor.st_size == by_path.st_size && by_descriptor.st_ino == by_path.st_ino;
    printf("%s: stat and fstat agree: %s, %lld bytes, mode %o\n", path, same ? "yes" : "no",
           (long long)by_path.st_size, by_path.st_mode);
    fclose(file);
}

static void first_line(const char *how, int fd) {
    char buffer[200];
    ssize_t size = fd < 0 ? -1 : read(fd, buffer, sizeof buffer - 1);
    if (size < 0) printf("%s: %s\n", how, errno_name(errno));
    else printf("%s: %.*s\n", how, (int)strcspn(buffer, "\n"), (buffer[size] = 0, buffer));
    if (fd >= 0) close(fd);
}

int main(int argc, char **argv) {
    begin();
    struct utsname names;
    if (uname(&names)) die("uname");
    char name[300];
    gethostname(name, sizeof name);
    printf("uname: %s %s %s\n", names.sysname, names.nodename, names.machine);
    printf("gethostname: %s\n", name);
    printf("uname of bad pointer: %s\n", outcome(syscall(SYS_uname, (void *)16)));
    for (int i = 1; i < argc; i++) printf("%s=%s\n", argv[i], getenv(argv[i]) ? getenv(argv[i]) : "(unset)");

    show("/etc/hostname");
    show("/etc/resolv.conf");
    show("/etc/hosts");
    int directory = open("/etc", O_RDONLY | O_DIRECTORY);
    first_line("openat", openat(directory, "hostname", O_RDONLY));
    first_line("through dots", open("/usr/../etc/./hostname", O_RDONLY));
    first_line("double slashes", open("//etc//hostname", O_RDONLY));
    first_line("with O_NOFOLLOW", open("/etc/hostname", O_RDONLY | O_NOFOLLOW));
    if (chdir("/etc")) die("chdir");
    first_line("relative", open("hostname", O_RDONLY));
    first_line("from below", open("../etc/hostname", O_RDONLY));
    struct { unsigned long long flags, mode, resolve; } how = {.flags = O_RDONLY | O_CLOEXEC};
    first_line("openat2", syscall(SYS_openat2, AT_FDCWD, "/etc/hostname", &how, sizeof how));
#ifdef SYS_open
    first_line("open(2)", syscall(SYS_open, "/etc/hostname", O_RDONLY));
#endif
    printf("access: %s\n", outcome(access("/etc/hostname", R_OK)));
    printf("faccessat: %s\n", outcome(faccessat(directory, "hostname", R_OK, 0)));
    struct stat status;
    printf("stat: %s", outcome(stat("/etc/hostname", &status)));
    printf(" %lld bytes\n", (long long)status.st_size);
    printf("lstat: %s", outcome(lstat("/etc/hostname", &status)));
    printf(" %lld bytes\n", (long long)status.st_size);
    printf("fstatat: %s", outcome(fstatat(directory, "hostname", &status, 0)));
    printf(" %lld bytes\n", (long long)status.st_size);
    struct { unsigned int mask; unsigned char rest[252]; } extended = {0};
    printf("statx: %s", outcome(syscall(SYS_statx, AT_FDCWD, "/etc/hostname", 0, 0x7ff, &extended)));
    unsigned long long size;
    memcpy(&size, (char *)&extended + 40, sizeof size);
    printf(" %llu bytes\n", size);
    printf("not a file of the names: %s\n", outcome(open("/etc/hostname/below", O_RDONLY)));
    printf("nor this: %s\n", outcome(open("/etc/hostnames", O_RDONLY)));
    const char *absent[] = {"/var/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve"};
    for (int i = 0; i < 2; i++) {
        struct sockaddr_un to = {.sun_family = AF_UNIX};
        snprintf(to.sun_path, sizeof to.sun_path, "%s", absent[i]);
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        printf("%s: %s\n", absent[i], outcome(connect(fd, (struct sockaddr *)&to, sizeof to)));
        close(fd);
    }
    return 0;
}
