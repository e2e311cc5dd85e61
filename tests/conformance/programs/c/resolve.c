/* resolve NAME...: what the C library's resolver makes of names, for each family. */
#include "conformance.h"

static const char *failure(int code) {
    switch (code) {
    case EAI_NONAME: return "EAI_NONAME";
    case EAI_AGAIN: return "EAI_AGAIN";
    case EAI_FAIL: return "EAI_FAIL";
#ifdef EAI_NODATA
    case EAI_NODATA: return "EAI_NODATA";
#endif
    case EAI_SYSTEM: return errno_name(errno);
    default: return gai_strerror(code);
    }
}

static int by_text(const void *left, const void *right) { return strcmp(left, right); }

int main(int argc, char **argv) {
    begin();
    int families[] = {AF_UNSPEC, AF_INET, AF_INET6};
    const char *family_names[] = {"any", "inet", "inet6"};
    for (int i = 1; i < argc; i++) {
        for (int j = 0; j < 3; j++) {
            struct addrinfo hints = {.ai_family = families[j], .ai_socktype = SOCK_STREAM, .ai_flags = AI_CANONNAME};
            struct addrinfo *found = NULL;
            int code = getaddrinfo(argv[i], "80", &hints, &found);
            printf("%s %s:", argv[i], family_names[j]);
            if (code) {
                printf(" %s\n", failure(code));
                continue;
            }
            char lines[256][64];
            int count = 0;
            for (struct addrinfo *each = found; each && count < 256; each = each->ai_next)
                snprintf(lines[count++], 64, "%s", text(each->ai_addr, each->ai_addrlen, 0));
            qsort(lines, count, 64, by_text);
            if (count > 4) printf(" %d addresses", count);
            else for (int k = 0; k < count; k++) printf(" %s", lines[k]);
            printf(" canonical %s\n", found->ai_canonname ? found->ai_canonname : "(none)");
            freeaddrinfo(found);
        }
    }
    const char *reverse[] = {"198.18.0.10", "fd00:198:18::10", "198.18.0.99"};
    for (int i = 0; i < 3; i++) {
        address of = endpoint(reverse[i], 80);
        char name[256];
        int code = getnameinfo(raw(&of), of.length, name, sizeof name, NULL, 0, NI_NAMEREQD);
        printf("%s: %s\n", reverse[i], code ? failure(code) : name);
    }
    return 0;
}
