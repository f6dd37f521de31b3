/* The asking side of one association, bare: HLS-GMAC, suite 0, authenticated and encrypted, glo- tags, one GET at a time.
 * Used by the C client and by the Python extension that the uvloop rival runs on. No time-outs, no retries, no limits. */
#ifndef ASKING_H
#define ASKING_H

#include "suite0.h"

enum { LONGEST_REQUEST = 128 };

typedef struct {
    uint32_t number, counter, received;
    uint8_t ek[16], ak[16], title[8], ctos[16], stoc[64], stoc_length, invoke;
} Meter;

static const uint8_t GET_VALUE[13] = {0xC0, 1, 0xC1, 0, 3, 1, 0, 1, 8, 0, 255, 2, 0};

static void meter_init(Meter *m, uint32_t number, uint32_t counter) {
    memset(m, 0, sizeof *m);
    m->number = number;
    m->counter = counter;
    key_of(BASE_EK, number, m->ek);
    key_of(BASE_AK, number, m->ak);
    title_of(number, m->title);
    for (int i = 0; i < 16; i++) m->ctos[i] = (uint8_t)(number * 31 + i * 17 + counter);
}

/* A ciphered request with its wrapper; the octets written. Plain APDUs here are short: lengths fit one octet. */
static int request(Meter *m, EVP_CIPHER_CTX *cx, uint8_t tag, const uint8_t *plain, int n, uint8_t *out) {
    uint8_t *p = out + WRAPPER;
    p[0] = tag;
    p[1] = (uint8_t)(5 + n + TAG);
    p[2] = SC_AUTH_ENC;
    put32(p + 3, m->counter);
    int length = 7 + seal(cx, m->ek, m->ak, CLIENT_TITLE, m->counter++, plain, n, p + 7);
    wrapper(out, 1, 1, (uint16_t)length);
    return WRAPPER + length;
}

static int request_get(Meter *m, EVP_CIPHER_CTX *cx, uint8_t *out) {
    uint8_t plain[13];
    memcpy(plain, GET_VALUE, 13);
    plain[2] = 0xC0 | (m->invoke = (m->invoke + 1) & 15);
    return request(m, cx, 0xC8, plain, 13, out);
}

/* Open an answer under `tag`: glo- only, the counter must rise. The plain octets' number, or -1. */
static int open_answer(Meter *m, EVP_CIPHER_CTX *cx, uint8_t tag, const uint8_t *apdu, int n, uint8_t *plain) {
    if (n < 7 + TAG || apdu[0] != tag || apdu[1] != n - 2 || apdu[2] != SC_AUTH_ENC) return -1;
    uint32_t counter = get32(apdu + 3);
    if (counter <= m->received) return -1;
    int got = unseal(cx, m->ek, m->ak, m->title, counter, apdu + 7, n - 7, plain);
    if (got >= 0) m->received = counter;
    return got;
}

/* A GET's answer: a double-long-unsigned under the invoke-id that was asked; 0, or -1. */
static int take_value(Meter *m, EVP_CIPHER_CTX *cx, const uint8_t *apdu, int n, uint32_t *value) {
    uint8_t plain[256];
    if (n > 200 || open_answer(m, cx, 0xCC, apdu, n, plain) != 9) return -1;
    if (plain[0] != 0xC4 || plain[1] != 1 || (plain[2] & 15) != m->invoke || plain[3] || plain[4] != 6) return -1;
    *value = get32(plain + 5);
    return 0;
}

static int request_association(Meter *m, EVP_CIPHER_CTX *cx, uint8_t *out) {
    static const uint8_t head[] = {0x60, 0, 0xA1, 9, 6, 7, 0x60, 0x85, 0x74, 5, 8, 1, 3, 0xA6, 10, 4, 8};
    static const uint8_t middle[] = {0x8A, 2, 7, 0x80, 0x8B, 7, 0x60, 0x85, 0x74, 5, 8, 2, 5, 0xAC, 18, 0x80, 16};
    static const uint8_t initiate[] = {1, 0, 0, 0, 6, 0x5F, 0x1F, 4, 0, 0x00, 0x50, 0x1D, 0x20, 0x00};
    uint8_t *p = out + WRAPPER;
    memcpy(p, head, sizeof head); p += sizeof head;
    memcpy(p, CLIENT_TITLE, 8); p += 8;
    memcpy(p, middle, sizeof middle); p += sizeof middle;
    memcpy(p, m->ctos, 16); p += 16;
    int text = sizeof initiate + TAG;
    *p++ = 0xBE; *p++ = text + 9; *p++ = 4; *p++ = text + 7; *p++ = 0x21; *p++ = text + 5; *p++ = SC_AUTH_ENC;
    put32(p, m->counter); p += 4;
    p += seal(cx, m->ek, m->ak, CLIENT_TITLE, m->counter++, initiate, sizeof initiate, p);
    int length = p - out - WRAPPER;
    out[WRAPPER + 1] = length - 2;
    wrapper(out, 1, 1, (uint16_t)length);
    return WRAPPER + length;
}

/* Take the AARE and keep StoC; 0, or -1 when it is not what was asked for. */
static int take_association(Meter *m, EVP_CIPHER_CTX *cx, const uint8_t *apdu, int n) {
    uint8_t plain[64];
    int seen = 0;
    if (n < 2 || apdu[0] != 0x61 || apdu[1] != n - 2) return -1;
    for (int at = 2; at + 2 <= n && at + 2 + apdu[at + 1] <= n; at += 2 + apdu[at + 1]) {
        const uint8_t *value = apdu + at + 2;
        int length = apdu[at + 1];
        if (apdu[at] == 0xA2 && length == 3 && value[2] == 0) seen |= 1;
        if (apdu[at] == 0xA4 && length == 10 && !memcmp(value + 2, m->title, 8)) seen |= 2;
        if (apdu[at] == 0xAA && length > 9 && length <= 66) { m->stoc_length = length - 2; memcpy(m->stoc, value + 2, length - 2); seen |= 4; }
        if (apdu[at] == 0xBE && length > 9 && length < 60 && value[2] == 0x28 && value[4] == SC_AUTH_ENC) {
            uint32_t counter = get32(value + 5);
            if (counter > m->received && unseal(cx, m->ek, m->ak, m->title, counter, value + 9, length - 9, plain) == 14) {
                m->received = counter;
                seen |= 8;
            }
        }
    }
    return seen == 15 ? 0 : -1;
}

static int request_proof(Meter *m, EVP_CIPHER_CTX *cx, uint8_t *out) {
    uint8_t plain[32] = {0xC3, 1, 0xC1, 0, 15, 0, 0, 40, 0, 0, 255, 1, 1, 9, 17};
    prove(cx, m->ek, m->ak, CLIENT_TITLE, m->counter++, m->stoc, m->stoc_length, plain + 15);
    return request(m, cx, 0xCB, plain, 32, out);
}

static int take_proof(Meter *m, EVP_CIPHER_CTX *opener, EVP_CIPHER_CTX *sealer, const uint8_t *apdu, int n) {
    uint8_t plain[256], wanted[17];
    if (n > 200 || open_answer(m, opener, 0xCF, apdu, n, plain) != 25 || plain[0] != 0xC7 || plain[3]) return -1;
    prove(sealer, m->ek, m->ak, m->title, get32(plain + 9), m->ctos, 16, wanted);
    return memcmp(wanted, plain + 8, 17) ? -1 : 0;
}

static int request_release(uint8_t *out) {
    memcpy(out + WRAPPER, "\x62\x03\x80\x01\x00", 5);
    wrapper(out, 1, 1, 5);
    return WRAPPER + 5;
}

#endif
