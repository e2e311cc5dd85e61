/* Makes calls with known values in every register and says what came of them. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

struct frame { uint64_t rdi, rsi, rdx, r10, r8, r9, rbx, rbp, r12, r13, r14, r15, rsp; };

/* long make(long number, struct frame *before, struct frame *after) */
__asm__(".text\n.globl make\nmake:\n"
        "push %rbx\npush %rbp\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "push %rdx\n" /* after */
        "mov %rdi, %rax\nmov %rsi, %r11\n"
        "mov 0(%r11), %rdi\nmov 8(%r11), %rsi\nmov 16(%r11), %rdx\nmov 24(%r11), %r10\n"
        "mov 32(%r11), %r8\nmov 40(%r11), %r9\nmov 48(%r11), %rbx\nmov 56(%r11), %rbp\n"
        "mov 64(%r11), %r12\nmov 72(%r11), %r13\nmov 80(%r11), %r14\nmov 88(%r11), %r15\n"
        "mov %rsp, 96(%r11)\n"
        "syscall\n"
        "mov (%rsp), %r11\n"
        "mov %rdi, 0(%r11)\nmov %rsi, 8(%r11)\nmov %rdx, 16(%r11)\nmov %r10, 24(%r11)\n"
        "mov %r8, 32(%r11)\nmov %r9, 40(%r11)\nmov %rbx, 48(%r11)\nmov %rbp, 56(%r11)\n"
        "mov %r12, 64(%r11)\nmov %r13, 72(%r11)\nmov %r14, 80(%r11)\nmov %r15, 88(%r11)\n"
        "mov %rsp, 96(%r11)\n"
        "pop %rdx\npop %r15\npop %r14\npop %r13\npop %r12\npop %rbp\npop %rbx\nret\n");
long make(long number, struct frame *before, struct frame *after);

static long call(const char *name, long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f) {
    struct frame before = {a, b, c, d, e, f, 0x1111111111111111, 0x2222222222222222, 0x3333333333333333,
                           0x4444444444444444, 0x5555555555555555, 0x6666666666666666, 0};
    struct frame after;
    long result = make(number, &before, &after);
    printf("%s: %ld%s\n", name, result, memcmp(&before, &after, sizeof before) ? ", REGISTERS CHANGED" : "");
    return result;
}
#define P(x) ((uint64_t)(x))

static const struct sockaddr_in elsewhere = {.sin_family = AF_INET};

static const char *shown(struct sockaddr_in *address, socklen_t length) {
    static char text[99];
    snprintf(text, sizeof text, "%s:%d, %d bytes", inet_ntoa(address->sin_addr), ntohs(address->sin_port), length);
    return text;
}

int main(int count, char **arguments) {
    struct sockaddr_in target = elsewhere, got;
    static const char path[] = "/nowhere/presented";
    char text[64] = "";
    socklen_t length = sizeof got;
    struct utsname names;

    target.sin_port = htons(80);
    inet_aton("198.18.0.1", &target.sin_addr);
    struct sockaddr_in as_it_was = target;

    if (count > 1) {
        call("chdir", SYS_chdir, P(arguments[1]), 2, 3, 4, 5, 6);
        return 0;
    }
    call("return", SYS_getppid, 1, 2, 3, 4, 5, 6);
    call("fail", SYS_getuid, 1, 2, 3, 4, 5, 6);
    call("held", SYS_getpgrp, 1, 2, 3, 4, 5, 6);
    call("return with bad address", SYS_getegid, 1, 2, 3, 4, 5, 6);
    call("held with bad address", SYS_getgid, 1, 2, 3, 4, 5, 6);
    call("writes", SYS_uname, P(&names), 2, 3, 4, 5, 6);
    printf("written: %s\n", names.sysname);

    int fd = call("path", SYS_openat, AT_FDCWD, P(path), O_RDONLY, 4, 5, 6);
    printf("content: %.*s\n", (int)read(fd, text, sizeof text), text);
    printf("path left: %s\n", path);
    close(fd);
    call("path again", SYS_openat, AT_FDCWD, P(path), O_RDONLY, 4, 5, 6);
    call("path that is none", SYS_openat, AT_FDCWD, 8, O_RDONLY, 4, 5, 6);

    int udp = socket(AF_INET, SOCK_DGRAM, 0);
    call("sendto", SYS_sendto, udp, P("one"), 3, 0, P(&target), sizeof target);
    struct iovec part = {(void *)"two", 3};
    struct msghdr header = {&target, sizeof target, &part, 1, NULL, 0, 0};
    call("sendmsg", SYS_sendmsg, udp, P(&header), 0, 4, 5, 6);
    struct mmsghdr many[2] = {{header, 99}, {header, 99}};
    call("sendmmsg", SYS_sendmmsg, udp, P(many), 2, 0, 5, 6);
    printf("lengths: %d %d\n", many[0].msg_len, many[1].msg_len);
    call("sendmsg with bad header", SYS_sendmsg, udp, 8, 0, 4, 5, 6);

    length = sizeof got;
    call("recvfrom", SYS_recvfrom, udp, P(text), sizeof text, 0, P(&got), P(&length));
    printf("from: %s\n", shown(&got, length));
    struct iovec room = {text, sizeof text};
    struct msghdr into = {&got, sizeof got, &room, 1, NULL, 0, 0};
    memset(&got, 0, sizeof got);
    call("recvmsg", SYS_recvmsg, udp, P(&into), 0, 4, 5, 6);
    printf("from: %s\n", shown(&got, into.msg_namelen));
    call("recvmsg, nothing", SYS_recvmsg, udp, P(&into), MSG_DONTWAIT, 4, 5, 6);

    call("connect", SYS_connect, udp, P(&target), sizeof target, 4, 5, 6);
    length = 6;
    memset(&got, 0xee, sizeof got);
    call("getpeername", SYS_getpeername, udp, P(&got), P(&length), 4, 5, 6);
    length = sizeof got;
    call("getpeername", SYS_getpeername, udp, P(&got), P(&length), 4, 5, 6);
    printf("peer: %s\n", shown(&got, length));
    call("getpeername with bad length", SYS_getpeername, udp, P(&got), 8, 4, 5, 6);
    printf("address left: %s\n", memcmp(&target, &as_it_was, sizeof target) ? "changed" : "same");
    return 0;
}
