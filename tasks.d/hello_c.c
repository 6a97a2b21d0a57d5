/* A WASM task in C: an ordinary program. Arguments come as argv, named ones also as
 * ARG_<name> in the environment; what it prints is the result, its exit code the verdict.
 *
 * Build it, on Debian, with clang, lld, wasi-libc and libclang-rt-dev-wasm32:
 *   clang --target=wasm32-wasi -Os -s -o hello_c.wasm hello_c.c
 */
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : getenv("ARG_name");
    if (name == NULL) {
        fprintf(stderr, "usage: %s NAME\n", argv[0]);
        return 64;
    }
    printf("Hello, %s, from C in task %s\n", name, getenv("QWORKER_TASK_ID"));
    return 0;
}
