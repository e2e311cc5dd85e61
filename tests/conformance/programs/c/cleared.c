/* cleared HOST ECHO NAME: a program that clears its environment, as daemons do, is still in the pod. */
#include "conformance.h"

extern char **environ;

int main(int argc, char **argv) {
    begin();
    if (argc < 4) return 98;
    int variables = 0;
    for (char **each = environ; each && *each; each++) variables++;
    if (argc == 4) {
        printf("variables at first: %s\n", variables ? "some" : "none");
        clearenv();
        char *arguments[] = {argv[0], argv[1], argv[2], argv[3], "executed", NULL}, *none[] = {NULL};
        execve("/proc/self/exe", arguments, none);
        die("exec");
    }
    printf("variables after exec: %s\n", variables ? "some" : "none");
    int fd = connected(argv[1], atoi(argv[2]));
    printf("echo: %s\n", echoes(fd));
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
    int code = getaddrinfo(argv[3], NULL, &hints, &found);
    printf("%s: %s\n", argv[3], code ? gai_strerror(code) : text(found->ai_addr, found->ai_addrlen, 0));
    char name[300];
    gethostname(name, sizeof name);
    printf("host name: %s\n", name);
    return 0;
}
