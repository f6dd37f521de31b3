/* What a process does to the files under $DISK_UNDER, in order, to $DISK_LOG: preloaded, so that SQLite and Python are recorded alike.
 *
 * Each record: op, length of the name (1 octet each), 2 octets of nothing, length of the data (4), offset (8), name, data; native order.
 * W write, T truncate to the offset, S the file was synced, D a directory was synced, U unlinked.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int log_fd = -1;
static const char *under;

#define REAL(type, name, ...)                                                                                          \
    static type (*real)(__VA_ARGS__);                                                                                  \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

__attribute__((constructor)) static void begin(void) {
    under = getenv("DISK_UNDER");
    const char *to = getenv("DISK_LOG");
    if (under && to) log_fd = open(to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void record(char op, const char *path, uint64_t offset, const void *data, uint32_t length) {
    size_t prefix = under ? strlen(under) : 0;
    if (log_fd < 0 || strncmp(path, under, prefix) != 0) return;
    const char *name = path + prefix;
    uint8_t head[16] = {(uint8_t)op, (uint8_t)strlen(name)};
    memcpy(head + 4, &length, 4);
    memcpy(head + 8, &offset, 8);
    struct iovec parts[] = {{head, 16}, {(void *)name, head[1]}, {(void *)data, length}};
    if (writev(log_fd, parts, 3) < 0) abort();
}

static const char *path_of(int fd) {
    static _Thread_local char path[PATH_MAX];
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    return path;
}

static void wrote(int fd, const void *data, ssize_t length, off_t offset) {
    if (length > 0 && fd != log_fd && fd > 2) record('W', path_of(fd), (uint64_t)offset, data, (uint32_t)length);
}

ssize_t write(int fd, const void *data, size_t length) {
    REAL(ssize_t, "write", int, const void *, size_t);
    off_t offset = lseek(fd, 0, SEEK_CUR);
    ssize_t done = real(fd, data, length);
    if (offset >= 0) wrote(fd, data, done, offset);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    ssize_t done = real(fd, data, length, offset);
    wrote(fd, data, done, offset);
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    ssize_t done = real(fd, data, length, offset);
    wrote(fd, data, done, offset);
    return done;
}

static int synced(int fd, int result) {
    struct stat about;
    if (result == 0 && fstat(fd, &about) == 0) record(S_ISDIR(about.st_mode) ? 'D' : 'S', path_of(fd), 0, "", 0);
    return result;
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    return synced(fd, real(fd));
}

int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    return synced(fd, real(fd));
}

int ftruncate(int fd, off_t length) {
    REAL(int, "ftruncate", int, off_t);
    int result = real(fd, length);
    if (result == 0) record('T', path_of(fd), (uint64_t)length, "", 0);
    return result;
}

int ftruncate64(int fd, off64_t length) {
    REAL(int, "ftruncate64", int, off64_t);
    int result = real(fd, length);
    if (result == 0) record('T', path_of(fd), (uint64_t)length, "", 0);
    return result;
}

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    int result = real(path);
    if (result == 0) record('U', path, 0, "", 0);
    return result;
}
