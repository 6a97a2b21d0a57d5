/* A WASI command for tests: does what its first argument says, and shows what it sees. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static int deep(int n) { volatile char frame[1024]; frame[0] = (char)n; return deep(n + 1) + frame[0]; }

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "args";
    if (strcmp(what, "args") == 0) {
        for (int i = 0; i < argc; i++) puts(argv[i]);
    } else if (strcmp(what, "env") == 0) {
        for (char **e = environ; *e; e++) puts(*e);
    } else if (strcmp(what, "cat") == 0) {
        FILE *in = argc > 2 ? fopen(argv[2], "r") : stdin;
        if (!in) { perror(argv[2]); return 1; }
        for (int c; (c = getc(in)) != EOF;) putchar(c);
    } else if (strcmp(what, "write") == 0) {
        FILE *out = argc > 3 ? fopen(argv[2], "w") : NULL;
        if (!out) { perror("write"); return 1; }
        fputs(argv[3], out);
    } else if (strcmp(what, "ls") == 0) {
        DIR *dir = opendir(argc > 2 ? argv[2] : "/");
        if (!dir) { perror("ls"); return 1; }
        for (struct dirent *e; (e = readdir(dir));) puts(e->d_name);
    } else if (strcmp(what, "sleep") == 0) {
        sleep((unsigned)atoi(argc > 2 ? argv[2] : "3600"));
    } else if (strcmp(what, "spin") == 0) {
        for (volatile unsigned long n = 0;; n++) {}
    } else if (strcmp(what, "eat") == 0) {
        size_t total = 0;
        /* Written to, or the compiler leaves the allocation out. */
        for (volatile char *p; (p = malloc(1 << 20)); total += 1 << 20) *p = 1;
        printf("%zu\n", total);
    } else if (strcmp(what, "flood") == 0) {
        static char line[4096];
        memset(line, 'x', sizeof line);
        for (int i = 0; i < 25600; i++) fwrite(line, 1, sizeof line, stdout);
        puts("\nend");
    } else if (strcmp(what, "abort") == 0) {
        abort();
    } else if (strcmp(what, "deep") == 0) {
        return deep(0);
    } else if (strcmp(what, "time") == 0) {
        printf("%lld\n", (long long)time(NULL));
    } else {
        return atoi(what);
    }
    return 0;
}
