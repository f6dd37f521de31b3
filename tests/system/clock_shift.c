/* The wall clock of a whole process as the file $CLOCK_SHIFT says, from one call to the next; the monotonic one is left
 * alone: preloaded, so that Rust, Python and SQLite see the same.
 *
 * The file: how many nanoseconds the clock is ahead, and where it stands still (0: it goes); 8 octets each, native order.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000

static const volatile int64_t *said;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("CLOCK_SHIFT");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    void *found = file < 0 ? MAP_FAILED : mmap(NULL, 16, PROT_READ, MAP_SHARED, file, 0);
    if (found == MAP_FAILED) abort();
    close(file);
    said = found;
}

static int64_t wall_ns(void) {
    struct timespec real;
    if (syscall(SYS_clock_gettime, CLOCK_REALTIME, &real) != 0) abort();
    int64_t ahead = __atomic_load_n(&said[0], __ATOMIC_RELAXED), standing = __atomic_load_n(&said[1], __ATOMIC_RELAXED);
    return standing ? standing : real.tv_sec * (int64_t)SECOND + real.tv_nsec + ahead;
}

int clock_gettime(clockid_t clock, struct timespec *into) {
    if (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE) return (int)syscall(SYS_clock_gettime, clock, into);
    int64_t now = wall_ns();
    into->tv_sec = now / SECOND;
    into->tv_nsec = now % SECOND;
    return 0;
}

int gettimeofday(struct timeval *restrict into, void *restrict zone) {
    (void)zone;
    int64_t now = wall_ns();
    into->tv_sec = now / SECOND;
    into->tv_usec = now % SECOND / 1000;
    return 0;
}

time_t time(time_t *into) {
    time_t now = wall_ns() / SECOND;
    if (into) *into = now;
    return now;
}
