/* What the programs share: the clock, failures in words. */
#ifndef COMMON_H
#define COMMON_H

#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))

/* Nanoseconds of the monotonic clock; read through the vDSO, so it is no system call. */
static inline uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static UNUSED _Noreturn void fail(const char *operation)
{
    fprintf(stderr, "%s: %s\n", operation, strerror(errno));
    exit(1);
}

static UNUSED _Noreturn void usage(const char *text)
{
    fprintf(stderr, "usage: %s\n", text);
    exit(2);
}

static inline long checked(const char *operation, long result)
{
    if (result < 0)
        fail(operation);
    return result;
}

static UNUSED int compare_u64(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

/* The value below which this share of the values lies; sorts them. */
static UNUSED uint64_t quantile(uint64_t *values, size_t count, double share)
{
    qsort(values, count, sizeof *values, compare_u64);
    return values[(size_t)(share * (double)(count - 1) + 0.5)];
}

#endif
