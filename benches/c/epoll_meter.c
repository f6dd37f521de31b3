/* A fleet of bare meters in one thread, for the benches' other end: HLS-GMAC, suite 0, authenticated and encrypted.
 *
 * The meter's number is the lower 24 bits of the loopback address that was connected to (127.A.B.C); its keys and system
 * title follow from the number. It answers AARQ, reply_to_HLS_authentication, GET normal (class 3 attribute 2 and 3, class 7
 * attribute 2: a 96 x 4 load profile) and RLRQ, under glo- or general-glo- tags as it was asked. Counters must rise.
 *
 *   epoll_meter --port P [--delay-ms D] [--seconds S]     stops at S seconds or when standard input ends
 *
 * With a delay, meter N answers a GET after half to one and a half of it, always the same: slow meters, each at its own
 * pace. Associations are not delayed.
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

#include "suite0.h"

enum { SLOTS = 4096, NONE = UINT32_MAX, IN_SIZE = 512, LINES = 96, PROFILE_SIZE = LINES * 36 + 16, OUT_SIZE = PROFILE_SIZE + 128, EVENTS = 512 };

typedef struct {
    int fd;
    uint32_t number, received, counter, generation;
    uint8_t client[8], ctos[64], stoc[16], ctos_length, state, general;
    uint16_t fill, from, to, longest;
    uint8_t in[IN_SIZE];
} Connection;

typedef struct { uint32_t at, generation, next; uint16_t length; uint8_t bytes[256]; } Later;

static EVP_CIPHER_CTX *sealer, *opener;
static Connection *connections;
static Later *later;
static uint32_t slots[SLOTS], later_free, waiting, delay_ms, *free_list, free_count;
static uint64_t slot_at;
static uint64_t answered, associations, refused, dropped;
static uint8_t profile[PROFILE_SIZE];
static int profile_length, epoll;

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* 2026-03-01 and on, a quarter of an hour a line: date-time and four double-long-unsigned. */
static void make_profile(void) {
    uint8_t *p = profile;
    *p++ = 1; *p++ = LINES;
    for (int line = 0; line < LINES; line++) {
        int minutes = 15 * (line + 1);
        uint8_t head[] = {2, 5, 9, 12, 0x07, 0xEA, 3, 1 + minutes / 1440, 0xFF, minutes / 60 % 24, minutes % 60, 0, 0, 0xFF, 0xC4, 0};
        memcpy(p, head, sizeof head);
        p += sizeof head;
        for (int column = 0; column < 4; column++) {
            *p++ = 6;
            put32(p, 1000000u * (column + 1) + 250 * line + column);
            p += 4;
        }
    }
    profile_length = p - profile;
}

static void close_connection(Connection *c) {
    close(c->fd);
    c->fd = -1;
    c->generation++;
    free_list[free_count++] = c - connections;
}

static void transmit(Connection *c, const uint8_t *bytes, int n) {
    if (write(c->fd, bytes, n) != n) { dropped++; close_connection(c); }
}

/* Put an answer's wrapper round it and send it, now or after the delay. */
static void answer(Connection *c, uint8_t *frame, int apdu_length, uint32_t delay) {
    wrapper(frame, c->to, c->from, apdu_length);
    int n = WRAPPER + apdu_length;
    if (!delay || n > (int)sizeof later->bytes || later_free == NONE) { transmit(c, frame, n); return; }
    uint32_t which = later_free, wait = delay / 2 + c->number * 2654435761u % (delay + 1);
    Later *l = &later[which];
    uint32_t *slot = &slots[(now_us() / 1000 + (wait < SLOTS - 2 ? wait : SLOTS - 2) + 1) % SLOTS];
    later_free = l->next;
    l->at = c - connections;
    l->generation = c->generation;
    l->length = n;
    memcpy(l->bytes, frame, n);
    l->next = *slot;
    *slot = which;
    waiting++;
}

/* Send what is due, a slot a millisecond. */
static void send_due(void) {
    for (uint64_t now = now_us() / 1000; slot_at <= now; slot_at++) {
        uint32_t which = slots[slot_at % SLOTS];
        slots[slot_at % SLOTS] = NONE;
        while (which != NONE) {
            Later *l = &later[which];
            uint32_t next = l->next;
            Connection *c = &connections[l->at];
            if (c->fd >= 0 && c->generation == l->generation) transmit(c, l->bytes, l->length);
            l->next = later_free;
            later_free = which;
            which = next;
            waiting--;
        }
    }
}

static uint8_t *put_length(uint8_t *p, int n) {
    if (n < 128) *p++ = n;
    else if (n < 256) { *p++ = 0x81; *p++ = n; }
    else { *p++ = 0x82; *p++ = n >> 8; *p++ = n; }
    return p;
}

/* Cipher `plain` as the request was ciphered and send it. */
static void answer_ciphered(Connection *c, uint8_t tag, const uint8_t *plain, int n) {
    uint8_t frame[OUT_SIZE], *p = frame + WRAPPER, ek[16], ak[16], title[8];
    key_of(BASE_EK, c->number, ek);
    key_of(BASE_AK, c->number, ak);
    title_of(c->number, title);
    if (c->general) { *p++ = 0xDB; *p++ = 8; memcpy(p, title, 8); p += 8; } else *p++ = tag;
    p = put_length(p, 5 + n + TAG);
    *p++ = SC_AUTH_ENC;
    put32(p, c->counter);
    p += 4;
    p += seal(sealer, ek, ak, title, c->counter++, plain, n, p);
    answer(c, frame, p - frame - WRAPPER, tag == 0xCC ? delay_ms : 0);
}

static void exception_response(Connection *c) {
    uint8_t frame[WRAPPER + 3] = {0};
    memcpy(frame + WRAPPER, "\xD8\x01\x01", 3);
    refused++;
    answer(c, frame, 3, 0);
}

static void associate(Connection *c, const uint8_t *apdu, int n) {
    uint8_t ek[16], ak[16], title[8], plain[64], sealed[64], frame[256];
    const uint8_t *information = NULL;
    int information_length = 0;
    for (int at = 2; at + 2 <= n && at + 2 + apdu[at + 1] <= n; at += 2 + apdu[at + 1]) {
        const uint8_t *value = apdu + at + 2;
        int length = apdu[at + 1];
        if (apdu[at] == 0xA6 && length == 10) memcpy(c->client, value + 2, 8);
        if (apdu[at] == 0xAC && length > 2 && length <= 66) { c->ctos_length = value[1]; memcpy(c->ctos, value + 2, length - 2); }
        if (apdu[at] == 0xBE && length > 9 && value[2] == 0x21) { information = value + 4; information_length = length - 4; }
    }
    key_of(BASE_EK, c->number, ek);
    key_of(BASE_AK, c->number, ak);
    title_of(c->number, title);
    if (!information || information_length > 64 || !c->ctos_length) { refused++; close_connection(c); return; }
    c->received = get32(information + 1);
    int got = unseal(opener, ek, ak, c->client, c->received, information + 5, information_length - 5, plain);
    /* 01, no dedicated key, response allowed, no quality of service, version 6, conformance, longest PDU. */
    if (got != 14 || plain[0] != 1 || plain[1]) { refused++; close_connection(c); return; }
    c->longest = get16(plain + 12);
    uint8_t initiate[] = {8, 0, 6, 0x5F, 0x1F, 4, 0, plain[9] & 0x40, plain[10] & 0x52, plain[11] & 0x1D, 0xFF, 0xFF, 0, 7};
    static uint64_t seed = 0x9E3779B97F4A7C15u;
    for (int i = 0; i < 16; i++) { seed = seed * 6364136223846793005u + 1442695040888963407u; c->stoc[i] = seed >> 56; }
    int text = seal(sealer, ek, ak, title, c->counter, initiate, sizeof initiate, sealed);
    uint8_t *p = frame + WRAPPER;
    static const uint8_t head[] = {0x61, 0, 0xA1, 9, 6, 7, 0x60, 0x85, 0x74, 5, 8, 1, 3, 0xA2, 3, 2, 1, 0, 0xA3, 5, 0xA1, 3, 2, 1, 14, 0xA4, 10, 4, 8};
    static const uint8_t middle[] = {0x88, 2, 7, 0x80, 0x89, 7, 0x60, 0x85, 0x74, 5, 8, 2, 5, 0xAA, 18, 0x80, 16};
    memcpy(p, head, sizeof head); p += sizeof head;
    memcpy(p, title, 8); p += 8;
    memcpy(p, middle, sizeof middle); p += sizeof middle;
    memcpy(p, c->stoc, 16); p += 16;
    *p++ = 0xBE; *p++ = text + 9; *p++ = 4; *p++ = text + 7; *p++ = 0x28; *p++ = text + 5; *p++ = SC_AUTH_ENC;
    put32(p, c->counter++); p += 4;
    memcpy(p, sealed, text); p += text;
    frame[WRAPPER + 1] = p - frame - WRAPPER - 2;
    c->state = 1;
    answer(c, frame, p - frame - WRAPPER, 0);
}

static void serve_get(Connection *c, const uint8_t *plain) {
    uint8_t out[OUT_SIZE];
    memcpy(out, "\xC4\x01", 2);
    out[2] = plain[2];
    int n = 4;
    uint32_t class_id = get16(plain + 3);
    out[3] = 0;
    if (class_id == 3 && plain[11] == 2) { out[n++] = 6; put32(out + n, 12345678 + c->counter); n += 4; }
    else if (class_id == 3 && plain[11] == 3) { memcpy(out + n, "\x02\x02\x0F\x00\x16\x1E", 6); n += 6; }
    else if (class_id == 7 && plain[11] == 2 && c->longest > profile_length + 64) { memcpy(out + n, profile, profile_length); n += profile_length; }
    else { out[3] = 1; out[n++] = 4; }
    answered++;
    answer_ciphered(c, 0xCC, out, n);
}

static void prove_back(Connection *c, const uint8_t *plain, int n) {
    uint8_t wanted[17], ek[16], ak[16], title[8], out[32] = {0xC7, 1, plain[2], 0, 1, 0, 9, 17};
    key_of(BASE_EK, c->number, ek);
    key_of(BASE_AK, c->number, ak);
    title_of(c->number, title);
    if (n != 32 || c->state != 1) { exception_response(c); return; }
    prove(sealer, ek, ak, c->client, get32(plain + 16), c->stoc, 16, wanted);
    if (memcmp(wanted, plain + 15, 17)) { exception_response(c); return; }
    prove(sealer, ek, ak, title, c->counter++, c->ctos, c->ctos_length, out + 8);
    c->state = 2;
    associations++;
    answer_ciphered(c, 0xCF, out, 25);
}

static void serve(Connection *c, const uint8_t *apdu, int n) {
    uint8_t plain[IN_SIZE], ek[16], ak[16];
    if (apdu[0] == 0x60) { associate(c, apdu, n); return; }
    if (apdu[0] == 0x62) {
        uint8_t frame[WRAPPER + 5];
        memcpy(frame + WRAPPER, "\x63\x03\x80\x01\x00", 5);
        c->state = 0;
        answer(c, frame, 5, 0);
        return;
    }
    const uint8_t *p = apdu + 1;
    c->general = apdu[0] == 0xDB;
    if (c->general) p += 1 + *p;
    if (*p >= 0x80) p++;
    p++;
    int text = apdu + n - p - 5;
    if (!c->state || text < TAG + 3 || p[0] != SC_AUTH_ENC || get32(p + 1) <= c->received) { exception_response(c); return; }
    key_of(BASE_EK, c->number, ek);
    key_of(BASE_AK, c->number, ak);
    int got = unseal(opener, ek, ak, c->client, get32(p + 1), p + 5, text, plain);
    if (got < 0) { exception_response(c); return; }
    c->received = get32(p + 1);
    if (plain[0] == 0xC0 && plain[1] == 1 && got >= 13 && c->state == 2) serve_get(c, plain);
    else if (plain[0] == 0xC3) prove_back(c, plain, got);
    else exception_response(c);
}

static void readable(Connection *c) {
    ssize_t got = read(c->fd, c->in + c->fill, IN_SIZE - c->fill);
    if (got <= 0) { if (got == 0 || errno != EAGAIN) close_connection(c); return; }
    c->fill += got;
    int at = 0;
    while (c->fd >= 0 && c->fill - at >= WRAPPER) {
        int length = get16(c->in + at + 6);
        if (length == 0 || length > IN_SIZE - WRAPPER) { refused++; close_connection(c); return; }
        if (c->fill - at < WRAPPER + length) break;
        c->from = get16(c->in + at + 2);
        c->to = get16(c->in + at + 4);
        serve(c, c->in + at + WRAPPER, length);
        at += WRAPPER + length;
    }
    c->fill -= at;
    if (at && c->fill) memmove(c->in, c->in + at, c->fill);
}

static void accept_all(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0) return;
        struct sockaddr_in own;
        socklen_t size = sizeof own;
        getsockname(fd, (struct sockaddr *)&own, &size);
        uint32_t address = ntohl(own.sin_addr.s_addr);
        if (address >> 24 != 127 || !free_count) { close(fd); dropped++; continue; }
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        Connection *c = &connections[free_list[--free_count]];
        uint32_t generation = c->generation;
        memset(c, 0, sizeof *c);
        c->generation = generation;
        c->fd = fd;
        c->number = address & 0xFFFFFF;
        /* The counter goes on where the wall clock says, so that a meter met again never repeats itself. */
        c->counter = (uint32_t)(now_us() / 64);
        struct epoll_event event = {EPOLLIN, {.ptr = c}};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

int main(int argc, char **argv) {
    int port = 0, seconds = 120, most = 20000;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--port")) port = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--delay-ms")) delay_ms = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--seconds")) seconds = atoi(argv[i + 1]);
        else { fprintf(stderr, "unknown option %s\n", argv[i]); return 2; }
    }
    struct rlimit files = {most + 64, most + 64};
    setrlimit(RLIMIT_NOFILE, &files);
    connections = calloc(most, sizeof *connections);
    free_list = calloc(most, sizeof *free_list);
    for (int i = most - 1; i >= 0; i--) { connections[i].fd = -1; free_list[free_count++] = i; }
    later = calloc(most, sizeof *later);
    for (int i = 0; i < most; i++) later[i].next = i + 1 < most ? (uint32_t)i + 1 : NONE;
    for (int i = 0; i < SLOTS; i++) slots[i] = NONE;
    slot_at = now_us() / 1000;
    sealer = new_context(1);
    opener = new_context(0);
    make_profile();

    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_ANY)};
    if (bind(listener, (struct sockaddr *)&any, sizeof any) || listen(listener, 4096)) { perror("listen"); return 1; }
    socklen_t size = sizeof any;
    getsockname(listener, (struct sockaddr *)&any, &size);
    epoll = epoll_create1(0);
    struct epoll_event event = {EPOLLIN, {.ptr = &listener}}, events[EVENTS];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    event.data.ptr = NULL;
    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &event); /* a pipe or a terminal; a plain file cannot be watched, then time ends it */
    printf("{\"ready\": true, \"port\": %d}\n", ntohs(any.sin_port));
    fflush(stdout);

    uint64_t end = now_us() + (uint64_t)seconds * 1000000;
    for (int running = 1; running && now_us() < end;) {
        int ready = epoll_wait(epoll, events, EVENTS, waiting ? 1 : 200);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr == &listener) accept_all(listener);
            else if (!events[i].data.ptr) { char rest[64]; if (read(0, rest, sizeof rest) <= 0) running = 0; }
            else if (((Connection *)events[i].data.ptr)->fd >= 0) readable(events[i].data.ptr);
        }
        send_due();
    }
    printf("{\"answered\": %lu, \"associations\": %lu, \"refused\": %lu, \"dropped\": %lu}\n", answered, associations, refused, dropped);
    return 0;
}
