/* The limit that processes have by themselves: posix_spawn and wait, so many in flight.
 *
 *     bare_spawn TOTAL IN_FLIGHT PROGRAM       prints processes per second */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    long total = atol(argv[1]), in_flight = atol(argv[2]), started = 0, ended = 0;
    char *program[] = {argv[3], NULL}, *environment[] = {NULL};
    double start = now();
    while (ended < total) {
        if (started < total && started - ended < in_flight) {
            pid_t pid;
            if (posix_spawn(&pid, program[0], NULL, NULL, program, environment) != 0) return 1;
            started++;
            continue;
        }
        int status;
        if (wait(&status) < 0 || status != 0) return 1;
        ended++;
    }
    printf("%.0f\n", total / (now() - start));
    return 0;
}
