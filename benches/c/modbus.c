/* Modbus/TCP, bare: devices that answer reads of holding registers, and a client that asks all of them again and again.
 * No time-outs, no retries, no queue, no limits: what the sockets alone cost.
 *
 *     modbus device --port 0                              prints {"port": N}; ends with its standard input
 *     modbus client --port N --meters M --seconds S --warm-up W [--rate R]
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { REGISTERS = 10, QUESTION = 12, ANSWER = 9 + 2 * REGISTERS, EVENTS = 512, MOST = 65536 };

typedef struct { int fd, out; uint16_t id; } Peer;
static Peer *peers[MOST];

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static double cpu_us(void) {
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return (use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1e6 + use.ru_utime.tv_usec + use.ru_stime.tv_usec;
}

static void fast(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, O_NONBLOCK);
}

static int device(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1, epoll = epoll_create1(0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)&address, length) || listen(listener, 4096) || getsockname(listener, (void *)&address, &length)) return 1;
    printf("{\"port\": %d}\n", ntohs(address.sin_port));
    fflush(stdout);
    struct epoll_event event = {EPOLLIN, {.fd = listener}}, input = {EPOLLIN, {.fd = 0}};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &input);
    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == 0) return 0;
            if (fd == listener) {
                for (int peer; (peer = accept(listener, NULL, NULL)) >= 0;) {
                    fast(peer);
                    struct epoll_event ready = {EPOLLIN, {.fd = peer}};
                    epoll_ctl(epoll, EPOLL_CTL_ADD, peer, &ready);
                }
                continue;
            }
            uint8_t in[QUESTION * 16], out[512];
            ssize_t got = read(fd, in, sizeof in);
            if (got <= 0) { close(fd); continue; }
            for (uint8_t *q = in; got - (q - in) >= QUESTION; q += QUESTION) {
                int registers = q[10] << 8 | q[11];
                if (registers > 125) registers = 125;
                memcpy(out, q, 8);
                out[4] = 0;
                out[5] = (uint8_t)(3 + 2 * registers);
                out[8] = (uint8_t)(2 * registers);
                for (int r = 0; r < registers; r++) { out[9 + 2 * r] = q[8]; out[10 + 2 * r] = (uint8_t)(q[9] + r); }
                if (write(fd, out, 9 + 2 * registers) < 0) { close(fd); break; }
            }
        }
    }
}

static void ask(Peer *peer) {
    uint16_t id = ++peer->id;
    uint8_t out[QUESTION] = {(uint8_t)(id >> 8), (uint8_t)id, 0, 0, 0, 6, 1, 3, 0, 0, 0, REGISTERS};
    peer->out = write(peer->fd, out, QUESTION) == QUESTION;
}

static int client(int port, int meters, double seconds, double warm_up, double rate) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int epoll = epoll_create1(0), next = 0;
    uint64_t exchanges = 0, wrong = 0, issued = 0, late = 0, counted = 0;
    for (int i = 0; i < meters; i++) {
        peers[i] = calloc(1, sizeof **peers);
        /* 28,000 ports an address: none of the loads needs more. */
        peers[i]->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(peers[i]->fd, (void *)&address, sizeof address)) { perror("connect"); return 1; }
        fast(peers[i]->fd);
        struct epoll_event event = {EPOLLIN, {.ptr = peers[i]}};
        epoll_ctl(epoll, EPOLL_CTL_ADD, peers[i]->fd, &event);
    }
    double cpu = cpu_us();
    uint64_t begin = now_ns(), warm = begin + (uint64_t)(warm_up * 1e9), end = warm + (uint64_t)(seconds * 1e9);
    if (!rate) for (int i = 0; i < meters; i++) ask(peers[i]);
    for (uint64_t now = begin; now < end; now = now_ns()) {
        if (!counted && now >= warm) { counted = now; exchanges = late = 0; cpu = cpu_us(); }
        if (rate) {
            uint64_t due = (uint64_t)((now - begin) / 5000000 * 5000000 * rate / 1e9);
            for (; issued < due; issued++) {
                Peer *peer = peers[next++ % meters];
                if (peer->out) late++; else ask(peer);
            }
        }
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll, events, EVENTS, rate ? 5 : 1);
        for (int i = 0; i < count; i++) {
            Peer *peer = events[i].data.ptr;
            uint8_t in[512];
            ssize_t got = read(peer->fd, in, sizeof in);
            if (got != ANSWER || (in[0] << 8 | in[1]) != peer->id || in[6] != 1 || in[7] != 3 || in[8] != 2 * REGISTERS) { wrong++; continue; }
            peer->out = 0;
            exchanges++;
            if (!rate) ask(peer);
        }
    }
    double took = (now_ns() - counted) / 1e9, spent = cpu_us() - cpu;
    printf("{\"client\": \"c-epoll\", \"meters\": %d, \"exchanges\": %lu, \"per_second\": %.0f, \"cpu_us\": %.3f, \"lost\": %lu, \"late\": %lu}\n",
           meters, exchanges, exchanges / took, exchanges ? spent / exchanges : 0, wrong, late);
    return wrong ? 1 : 0;
}

int main(int argc, char **argv) {
    int port = 0, meters = 1;
    double seconds = 3, warm_up = 1, rate = 0;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    for (int i = 2; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (!strcmp(name, "--port")) port = atoi(value);
        else if (!strcmp(name, "--meters")) meters = atoi(value);
        else if (!strcmp(name, "--seconds")) seconds = atof(value);
        else if (!strcmp(name, "--warm-up")) warm_up = atof(value);
        else if (!strcmp(name, "--rate")) rate = atof(value);
        else if (strcmp(name, "--mode")) { fprintf(stderr, "unknown option %s\n", name); return 2; }
    }
    if (meters < 1 || meters > MOST) return 2;
    if (argc > 1 && !strcmp(argv[1], "device")) return device(port);
    if (argc > 1 && !strcmp(argv[1], "client")) return client(port, meters, seconds, warm_up, rate);
    fprintf(stderr, "usage: modbus device|client --port N ...\n");
    return 2;
}
