/* Prints nanoseconds a step for each number of megabytes; each step waits for the one before. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
static double chase(size_t bytes) {
    size_t count = bytes / 64, *order = malloc(count * sizeof *order), steps = 3000000;
    void **lines = aligned_alloc(4096, bytes), **at = lines;
    for (size_t i = 0; i < count; i++) order[i] = i;
    for (size_t i = count - 1; i > 0; i--) {
        size_t j = rand() % i, other = order[i];
        order[i] = order[j], order[j] = other;
    }
    for (size_t i = 0; i < count; i++) lines[order[i] * 8] = &lines[order[(i + 1) % count] * 8];
    for (size_t i = 0; i < count; i++) at = *at;
    clock_t began = clock();
    for (size_t i = 0; i < steps; i++) at = *at;
    double took = (double)(clock() - began) / CLOCKS_PER_SEC / steps * 1e9;
    if (at == NULL) puts("");
    free(lines), free(order);
    return took;
}
int main(int count, char **sizes) {
    for (int i = 1; i < count; i++) printf("%s %.1f\n", sizes[i], chase(atoi(sizes[i]) << 20));
}
