/* Takes time of a processor, as a program does that has something to do every now and then: busy SHARE
 *
 * Works until it has had its share of the time since it began, sleeps for a millisecond, and so on. Says "ready". */
#include "common.h"

static uint64_t used_ns(void)
{
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        usage("busy SHARE");
    double share = atof(argv[1]);
    struct timespec pause = {.tv_nsec = 1000000};
    checked("write", write(1, "ready\n", 6));
    for (uint64_t began = now_ns();; nanosleep(&pause, NULL))
        while ((double)used_ns() < share * (double)(now_ns() - began))
            ;
}
