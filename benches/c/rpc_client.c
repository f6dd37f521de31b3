/* Who calls msgpack-RPC servers in the benches: an epoll loop with OpenSSL, and nothing between. One thread.
 *
 * Each --group is callers of one kind, on connections of their own:
 *   connections=N    over address=unix:PATH or tls:PORT (of this machine; with authority=, certificate=, key=)
 *   rate=R           R calls a second, evenly over the connections and over time, whether answers come or not; a call's
 *                    time counts from when it was due
 *   window=W         without a rate: W calls on their way on each connection, the next as soon as one is answered
 *   method=, params=HEX   with digits=AT and numbers=N: five digits at octet AT of the params go from 00001 to N
 *   refusals=1       errors are what is expected; otherwise a call that came to an error is lost
 *
 * Counts S seconds after W of warming up, then waits until everything is answered, G at most. What is not is lost.
 * Prints one JSON line: for each group calls, answers, refusals, losses and latencies; the CPU that --pid had.
 *
 *   rpc_client [--pid PID] [--warm-up W] [--seconds S] [--grace G] --group KEY=VALUE,... [--group ...]
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { GROUPS = 8, LONGEST = 512, EVENTS = 256, ON_THE_WAY = 8192, BUCKETS = 64 * 16, IN_SIZE = 1 << 18, OUT_SIZE = 1 << 19 };

typedef struct Group Group;

typedef struct {
    Group *group;
    SSL *tls;
    int fd, waits;
    uint32_t number, answered;
    size_t in, out;
    uint8_t *input, *output;
    uint64_t due[ON_THE_WAY]; /* by the call's number; 0: answered */
} Connection;

struct Group {
    char name[32], address[200], authority[200], certificate[200], key[200], method[64];
    uint8_t params[LONGEST];
    int connections, window, digits, numbers, refusals, turn, next_number;
    size_t params_size;
    double rate;
    uint64_t next, sent, answers, counted, refused, wrong, withheld, histogram[BUCKETS];
    Connection *all;
};

static Group groups[GROUPS];
static int group_count, epoll;
static uint64_t begin, end; /* calls that are due between are counted */

static void die(const char *what) {
    fprintf(stderr, "rpc_client: %s: %s\n", what, strerror(errno));
    ERR_print_errors_fp(stderr);
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* User and system time of a process, all its threads, in microseconds. */
static double cpu_us(int pid) {
    char path[64], text[1024];
    unsigned long user = 0, system = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    char *after = strrchr(text, ')');
    if (after) sscanf(after + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
    return (user + system) * 1e6 / sysconf(_SC_CLK_TCK);
}

/* Sixteen buckets an octave of nanoseconds. */
static void record(Group *g, uint64_t ns) {
    int octave = 63 - __builtin_clzll(ns | 16);
    g->histogram[octave * 16 + ((ns >> (octave - 4)) & 15)]++;
}

static double quantile_us(const Group *g, double q) {
    uint64_t all = 0, seen = 0;
    for (int i = 0; i < BUCKETS; i++) all += g->histogram[i];
    for (int i = 0; i < BUCKETS; i++)
        if ((seen += g->histogram[i]) >= q * all && all) return (double)(1ull << (i / 16)) * (1 + (i % 16 + 0.5) / 16) / 1000;
    return 0;
}

/* The octets of the value at `at`, or 0 if they have not all arrived. Servers here send no extension types. */
static size_t value_size(const uint8_t *at, size_t have) {
    uint64_t left = 1;
    size_t used = 0;
    while (left) {
        if (used >= have) return 0;
        uint8_t first = at[used];
        uint64_t length = 0, body = 0;
        int size = 0;
        left--;
        if (first >= 0xc4 && first <= 0xc6) size = 1 << (first - 0xc4);
        else if (first == 0xca) body = 4;
        else if (first == 0xcb) body = 8;
        else if (first >= 0xcc && first <= 0xcf) body = 1 << (first - 0xcc);
        else if (first >= 0xd0 && first <= 0xd3) body = 1 << (first - 0xd0);
        else if (first >= 0xd9 && first <= 0xdb) size = 1 << (first - 0xd9);
        else if (first >= 0xdc && first <= 0xdf) size = first & 1 ? 4 : 2;
        if (used + 1 + size > have) return 0;
        for (int i = 0; i < size; i++) length = length << 8 | at[used + 1 + i];
        if ((first & 0xf0) == 0x80) left += 2 * (first & 15);
        else if ((first & 0xf0) == 0x90) left += first & 15;
        else if ((first & 0xe0) == 0xa0) body = first & 31;
        else if (first == 0xdc || first == 0xdd) left += length;
        else if (first == 0xde || first == 0xdf) left += 2 * length;
        else body += length;
        used += 1 + size + body;
    }
    return used <= have ? used : 0;
}

static void watch(Connection *c, int writing) {
    if (c->waits == writing) return;
    struct epoll_event event = {EPOLLIN | (writing ? EPOLLOUT : 0), {.ptr = c}};
    epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
    c->waits = writing;
}

static void flush(Connection *c) {
    size_t done = 0;
    while (done < c->out) {
        ssize_t n = c->tls ? SSL_write(c->tls, c->output + done, c->out - done) : write(c->fd, c->output + done, c->out - done);
        if (n <= 0) {
            if (c->tls ? SSL_get_error(c->tls, n) != SSL_ERROR_WANT_WRITE : errno != EAGAIN) die("a server closed a connection");
            break;
        }
        done += n;
    }
    memmove(c->output, c->output + done, c->out -= done);
    watch(c, c->out > 0);
}

static void ask(Connection *c, uint64_t due) {
    Group *g = c->group;
    uint32_t number = c->number;
    size_t name = strlen(g->method), size = 8 + name + g->params_size;
    if (c->due[number % ON_THE_WAY] || c->out + size > OUT_SIZE) { g->withheld++; return; }
    c->number++;
    uint8_t *to = c->output + c->out;
    memcpy(to, (uint8_t[]){0x94, 0, 0xce, number >> 24, number >> 16, number >> 8, number, 0xa0 | name}, 8);
    memcpy(to + 8, g->method, name);
    memcpy(to + 8 + name, g->params, g->params_size);
    if (g->numbers) {
        char digits[8];
        g->next_number = g->next_number % g->numbers + 1;
        snprintf(digits, sizeof digits, "%05d", g->next_number % 100000);
        memcpy(to + 8 + name + g->digits, digits, 5);
    }
    c->out += size;
    c->due[number % ON_THE_WAY] = due;
    g->sent++;
}

/* An answer: [1, number, error, result]. */
static void take(Connection *c, const uint8_t *at, size_t size, uint64_t now) {
    Group *g = c->group;
    uint32_t number = 0;
    size_t used = 2;
    if (size < 5 || at[0] != 0x94 || at[1] != 1) { g->wrong++; return; }
    if (at[2] < 0x80) number = at[2], used = 3;
    else if (at[2] >= 0xcc && at[2] <= 0xce) {
        int octets = 1 << (at[2] - 0xcc);
        for (int i = 0; i < octets; i++) number = number << 8 | at[3 + i];
        used = 3 + octets;
    }
    uint64_t *due = &c->due[number % ON_THE_WAY];
    if (!*due || number >= c->number) { g->wrong++; return; }
    g->answers++;
    if (at[used] != 0xc0) {
        if (!g->refused++ && !g->refusals) fprintf(stderr, "refused: %.*s\n", (int)(size - used > 200 ? 200 : size - used), at + used);
    }
    if (now >= begin && now < end) g->counted++;
    if (*due >= begin && *due < end) record(g, now > *due ? now - *due : 1);
    *due = 0;
}

static void receive(Connection *c) {
    for (;;) {
        ssize_t n = c->tls ? SSL_read(c->tls, c->input + c->in, IN_SIZE - c->in) : read(c->fd, c->input + c->in, IN_SIZE - c->in);
        if (n <= 0) {
            if (c->tls ? SSL_get_error(c->tls, n) == SSL_ERROR_WANT_READ : n < 0 && errno == EAGAIN) break;
            die("a server closed a connection");
        }
        c->in += n;
        size_t used = 0, size, answered = 0;
        uint64_t now = now_ns();
        while ((size = value_size(c->input + used, c->in - used))) {
            take(c, c->input + used, size, now);
            used += size;
            answered++;
        }
        memmove(c->input, c->input + used, c->in -= used);
        if (!c->group->rate && now < end)
            for (; answered; answered--) ask(c, now);
        if (!c->tls) break; /* epoll says if there is more */
    }
    if (c->out) flush(c);
}

static int connected(const Group *g) {
    int fd;
    if (!strncmp(g->address, "unix:", 5)) {
        struct sockaddr_un to = {.sun_family = AF_UNIX};
        snprintf(to.sun_path, sizeof to.sun_path, "%s", g->address + 5);
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&to, sizeof to)) die(g->address);
    } else {
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(g->address + 4)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int one = 1;
        fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&to, sizeof to)) die(g->address);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    return fd;
}

static void open_group(Group *g) {
    SSL_CTX *context = NULL;
    g->all = calloc(g->connections, sizeof *g->all);
    if (!strncmp(g->address, "tls:", 4)) {
        context = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
        SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        if (SSL_CTX_load_verify_locations(context, g->authority, NULL) != 1 ||
            SSL_CTX_use_certificate_file(context, g->certificate, SSL_FILETYPE_PEM) != 1 ||
            SSL_CTX_use_PrivateKey_file(context, g->key, SSL_FILETYPE_PEM) != 1)
            die(g->certificate);
    }
    for (int i = 0; i < g->connections; i++) {
        Connection *c = &g->all[i];
        c->group = g;
        c->input = malloc(IN_SIZE);
        c->output = malloc(OUT_SIZE);
        c->fd = connected(g);
        if (context) {
            c->tls = SSL_new(context);
            SSL_set_fd(c->tls, c->fd);
            if (SSL_connect(c->tls) != 1) die("TLS");
        }
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        struct epoll_event event = {EPOLLIN, {.ptr = c}};
        epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
    }
}

static void parse_group(char *text) {
    if (group_count == GROUPS) die("too many groups");
    Group *g = &groups[group_count++];
    g->connections = g->window = 1;
    for (char *rest, *one = strtok_r(text, ",", &rest); one; one = strtok_r(NULL, ",", &rest)) {
        char *value = strchr(one, '=');
        if (!value) die(one);
        *value++ = 0;
#define TEXT(field) if (!strcmp(one, #field)) snprintf(g->field, sizeof g->field, "%s", value)
#define NUMBER(field) if (!strcmp(one, #field)) g->field = atoi(value)
        TEXT(name); TEXT(address); TEXT(authority); TEXT(certificate); TEXT(key); TEXT(method);
        NUMBER(connections); NUMBER(window); NUMBER(digits); NUMBER(numbers); NUMBER(refusals);
        if (!strcmp(one, "rate")) g->rate = atof(value);
        if (!strcmp(one, "params"))
            for (unsigned octet; g->params_size < LONGEST && sscanf(value, "%2x", &octet) == 1; value += 2) g->params[g->params_size++] = octet;
    }
}

static int on_the_way(void) {
    for (Group *g = groups; g < groups + group_count; g++)
        if (g->answers < g->sent) return 1;
    return 0;
}

int main(int argc, char **argv) {
    double warm_up = 1, seconds = 3, grace = 10;
    int pid = 0, paced = 0;
    epoll = epoll_create1(0);
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--pid")) pid = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--warm-up")) warm_up = atof(argv[i + 1]);
        else if (!strcmp(argv[i], "--seconds")) seconds = atof(argv[i + 1]);
        else if (!strcmp(argv[i], "--grace")) grace = atof(argv[i + 1]);
        else if (!strcmp(argv[i], "--group")) parse_group(argv[i + 1]);
        else die(argv[i]);
    }
    for (Group *g = groups; g < groups + group_count; g++) open_group(g);
    uint64_t start = now_ns();
    begin = start + (uint64_t)(warm_up * 1e9);
    end = begin + (uint64_t)(seconds * 1e9);
    for (Group *g = groups; g < groups + group_count; g++) {
        g->next = start;
        paced |= g->rate > 0;
        if (g->rate) continue;
        for (Connection *c = g->all; c < g->all + g->connections; c++) {
            for (int i = 0; i < g->window; i++) ask(c, start);
            flush(c);
        }
    }
    double cpu_begin = 0, cpu_end = 0;
    uint64_t until = end + (uint64_t)(grace * 1e9), now;
    int measured = 0;
    while ((now = now_ns()) < until && (now < end || on_the_way())) {
        if (!measured && now >= begin) cpu_begin = cpu_us(pid), measured = 1;
        if (measured == 1 && now >= end) cpu_end = cpu_us(pid), measured = 2;
        if (now < end)
            for (Group *g = groups; g < groups + group_count; g++)
                for (; g->rate && g->next <= now && g->next < end; g->next += (uint64_t)(1e9 / g->rate)) {
                    Connection *c = &g->all[g->turn++ % g->connections];
                    ask(c, g->next);
                    flush(c);
                }
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll, events, EVENTS, paced && now < end ? 0 : 10);
        for (int i = 0; i < ready; i++) {
            Connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) flush(c);
            if (events[i].events & ~EPOLLOUT) receive(c);
        }
    }
    if (measured == 1) cpu_end = cpu_us(pid);
    printf("{\"cpu_us\": %.0f, \"seconds\": %g, \"groups\": {", cpu_end - cpu_begin, seconds);
    for (Group *g = groups; g < groups + group_count; g++) {
        uint64_t lost = g->sent - g->answers + g->withheld + g->wrong + (g->refusals ? 0 : g->refused);
        printf("%s\"%s\": {\"sent\": %lu, \"answers\": %lu, \"refused\": %lu, \"lost\": %lu, \"per_second\": %.0f, \"p50_us\": %.1f, \"p99_us\": %.1f}",
               g == groups ? "" : ", ", g->name, g->sent, g->answers, g->refused, lost, g->counted / seconds,
               quantile_us(g, 0.5), quantile_us(g, 0.99));
    }
    puts("}}");
    return 0;
}
