/* The limit that the head-end is held against: an epoll loop, AES-GCM, and nothing else. One thread.
 *
 * Connects and associates with N meters at 127.A.B.C (HLS-GMAC, suite 0), asks each for one register, and counts S seconds of it after W:
 *   saturated   each meter is asked again as soon as it answered
 *   paced       R requests a second, round robin over the meters that are not asked already
 *   cycle       connect, associate, GET, release, close, again, C at a time
 * Prints one JSON line: exchanges, loss, CPU of this process, latencies, memory.
 *
 *   held        only connected and associated: what a connection costs in memory
 *
 *   epoll_client --port P --meters N --mode MODE [--rate R] [--tick-ms T] [--concurrency C]
 *                [--warm-up W] [--seconds S] [--first NUMBER]
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "asking.h"

enum { EVENTS = 512, IN_SIZE = 512, BUCKETS = 64 * 16, SATURATED = 0, PACED, CYCLE, HELD };
enum { CONNECTING, ASSOCIATING, PROVING, IDLE, ASKING, RELEASING, GONE };

/* What a connection keeps between turns; octets are read into a buffer of the loop's and a rest is rare. */
typedef struct { Meter meter; uint64_t asked; int fd; uint16_t state, fill; uint8_t *rest; } Connection;

static EVP_CIPHER_CTX *sealer, *opener;
static Connection *connections;
static uint64_t histogram[BUCKETS], exchanges, failures, cycles, late;
static uint32_t first = 0x010001, meters = 1000, associated, next_meter, *idle, idle_head, idle_tail, idle_mask;
static int epoll, port, mode, measuring;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static double cpu_us(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 + u.ru_utime.tv_usec + u.ru_stime.tv_usec;
}

static long resident_kib(void) {
    long pages = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%ld %ld", &pages, &resident) != 2) resident = 0;
    if (f) fclose(f);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* Sixteen buckets an octave of nanoseconds. */
static void record(uint64_t ns) {
    int octave = 63 - __builtin_clzll(ns | 16);
    histogram[octave * 16 + ((ns >> (octave - 4)) & 15)]++;
}

static double quantile(double q) {
    uint64_t all = 0, seen = 0;
    for (int i = 0; i < BUCKETS; i++) all += histogram[i];
    for (int i = 0; i < BUCKETS; i++)
        if ((seen += histogram[i]) >= q * all && all) return (double)(1ull << (i / 16)) * (1 + (i % 16 + 0.5) / 16) / 1000;
    return 0;
}

static void fail(Connection *c) {
    failures++;
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    c->state = GONE;
}

static void transmit(Connection *c, const uint8_t *bytes, int n) {
    if (write(c->fd, bytes, n) != n) fail(c);
}

static void ask(Connection *c) {
    uint8_t out[LONGEST_REQUEST];
    c->state = ASKING;
    c->asked = now_ns();
    transmit(c, out, request_get(&c->meter, sealer, out));
}

static void open_connection(Connection *c, uint32_t number) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(127u << 24 | number)};
    int one = 1;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    /* Counters of a run begin above those of earlier runs: a sixteenth of a millisecond each since 2026. */
    meter_init(&c->meter, number, (uint32_t)(((uint64_t)(t.tv_sec - 1767225600) * 1000 + t.tv_nsec / 1000000) / 16));
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    c->state = CONNECTING;
    c->fill = 0;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) { fail(c); return; }
    struct epoll_event event = {EPOLLOUT, {.ptr = c}};
    epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
}

static void take(Connection *c, const uint8_t *apdu, int n) {
    uint8_t out[LONGEST_REQUEST];
    uint32_t value;
    switch (c->state) {
    case ASSOCIATING:
        if (take_association(&c->meter, opener, apdu, n)) { fail(c); return; }
        c->state = PROVING;
        transmit(c, out, request_proof(&c->meter, sealer, out));
        return;
    case PROVING:
        if (take_proof(&c->meter, opener, sealer, apdu, n)) { fail(c); return; }
        associated++;
        c->state = IDLE;
        if (mode == CYCLE) ask(c);
        return;
    case ASKING:
        if (take_value(&c->meter, opener, apdu, n, &value)) { fail(c); return; }
        if (measuring) { exchanges++; record(now_ns() - c->asked); }
        c->state = IDLE;
        if (mode == CYCLE) {
            c->state = RELEASING;
            transmit(c, out, request_release(out));
        } else if (measuring && mode == SATURATED) ask(c);
        else idle[idle_tail++ & idle_mask] = c - connections;
        return;
    case RELEASING:
        close(c->fd);
        if (measuring) cycles++;
        c->state = GONE;
        c->fd = -1;
        if (measuring >= 0) { open_connection(c, first + next_meter); next_meter = (next_meter + 1) % meters; }
        return;
    default:
        fail(c);
    }
}

static void ready(Connection *c) {
    uint8_t in[IN_SIZE], out[LONGEST_REQUEST];
    if (c->state == GONE) return;
    if (c->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) { fail(c); return; }
        struct epoll_event event = {EPOLLIN, {.ptr = c}};
        epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
        c->state = ASSOCIATING;
        transmit(c, out, request_association(&c->meter, sealer, out));
        return;
    }
    if (c->fill) memcpy(in, c->rest, c->fill);
    ssize_t got = read(c->fd, in + c->fill, IN_SIZE - c->fill);
    if (got <= 0) { if (got == 0 || errno != EAGAIN) fail(c); return; }
    int have = c->fill + got, length = have >= WRAPPER ? (int)get16(in + 6) : IN_SIZE;
    if (have == WRAPPER + length) { c->fill = 0; take(c, in + WRAPPER, length); return; }
    if (have > WRAPPER + length || have == IN_SIZE) { fail(c); return; }
    if (!c->rest) c->rest = malloc(IN_SIZE);
    memcpy(c->rest, in, have);
    c->fill = have;
}

static void turn(int wait_ms) {
    struct epoll_event events[EVENTS];
    int n = epoll_wait(epoll, events, EVENTS, wait_ms);
    for (int i = 0; i < n; i++) ready(events[i].data.ptr);
}

int main(int argc, char **argv) {
    double seconds = 3, rate = 10000, warm_up = 1;
    uint32_t concurrency = 64;
    uint64_t tick_ns = 1000000;
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (!strcmp(name, "--port")) port = atoi(value);
        else if (!strcmp(name, "--meters")) meters = atoi(value);
        else if (!strcmp(name, "--first")) first = strtoul(value, NULL, 0);
        else if (!strcmp(name, "--mode")) mode = !strcmp(value, "paced") ? PACED : !strcmp(value, "cycle") ? CYCLE : !strcmp(value, "held") ? HELD : SATURATED;
        else if (!strcmp(name, "--rate")) rate = atof(value);
        else if (!strcmp(name, "--tick-ms")) tick_ns = (uint64_t)(atof(value) * 1e6);
        else if (!strcmp(name, "--concurrency")) concurrency = atoi(value);
        else if (!strcmp(name, "--warm-up")) warm_up = atof(value);
        else if (!strcmp(name, "--seconds")) seconds = atof(value);
        else { fprintf(stderr, "unknown option %s\n", name); return 2; }
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    sealer = new_context(1);
    opener = new_context(0);
    epoll = epoll_create1(0);
    connections = calloc(meters, sizeof *connections);
    idle_mask = 1;
    while (idle_mask < meters + 1) idle_mask = idle_mask * 2 + 1;
    idle = calloc(idle_mask + 1, sizeof *idle);
    long empty_kib = resident_kib();

    uint32_t opened = 0, held = mode == CYCLE ? (concurrency < meters ? concurrency : meters) : meters;
    uint64_t give_up = now_ns() + 30000000000ull;
    if (mode != CYCLE) {
        while (associated + failures < held && now_ns() < give_up) {
            /* At most 256 on the way, so that the listener's backlog holds them. */
            while (opened < held && opened - associated - failures < 256) { open_connection(&connections[opened], first + opened); opened++; }
            turn(100);
        }
        for (uint32_t i = 0; i < held; i++) if (connections[i].state == IDLE) idle[idle_tail++ & idle_mask] = i;
    }
    long held_kib = resident_kib();
    uint32_t associated_before = associated;

    double cpu = cpu_us();
    uint64_t begin = now_ns(), warm = begin + (uint64_t)(warm_up * 1e9), end = warm + (uint64_t)(seconds * 1e9), issued = 0, counted = 0;
    measuring = 1;
    if (mode == CYCLE) for (; opened < held; opened++, next_meter++) open_connection(&connections[opened], first + next_meter);
    if (mode == SATURATED) while (idle_head != idle_tail) ask(&connections[idle[idle_head++ & idle_mask]]);
    for (uint64_t now = begin; now < end; now = now_ns()) {
        if (!counted && now >= warm) {
            counted = now;
            exchanges = cycles = late = 0;
            memset(histogram, 0, sizeof histogram);
            cpu = cpu_us();
        }
        if (mode == PACED) {
            uint64_t due = (uint64_t)((now - begin) / tick_ns * tick_ns * rate / 1e9);
            while (issued < due) {
                issued++;
                if (idle_head == idle_tail) { late++; continue; }
                ask(&connections[idle[idle_head++ & idle_mask]]);
            }
        }
        uint64_t next = begin + ((now - begin) / tick_ns + 1) * tick_ns, spent = now_ns();
        turn(mode != PACED ? 1 : next > spent ? (int)((next - spent) / 1000000) + 1 : 0);
    }
    double took = (now_ns() - counted) / 1e9;
    cpu = cpu_us() - cpu;
    measuring = 0;
    uint32_t outstanding = 0;
    if (mode == CYCLE) measuring = -1;
    else {
        /* What is still out must come back: an answer lost is loss, however fast the rest was. */
        uint64_t last = now_ns() + 3000000000ull;
        do {
            turn(50);
            outstanding = 0;
            for (uint32_t i = 0; i < held; i++) outstanding += connections[i].state == ASKING;
        } while (outstanding && now_ns() < last);
    }
    double count = mode == CYCLE ? cycles : exchanges;
    printf("{\"client\": \"c-epoll\", \"meters\": %u, \"associated\": %u, \"seconds\": %.3f, \"exchanges\": %.0f, \"per_second\": %.0f, "
           "\"cpu_us\": %.3f, \"lost\": %lu, \"late\": %lu, \"p50_us\": %.0f, \"p99_us\": %.0f, \"kib_a_connection\": %.3f}\n",
           held, mode == CYCLE ? held : associated_before, took, count, count / took, count ? cpu / count : 0, failures + outstanding, late,
           quantile(0.5), quantile(0.99), held ? (held_kib - empty_kib) / (double)held : 0);
    return failures + outstanding ? 1 : 0;
}
