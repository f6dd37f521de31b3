/* What the bare C meter and the bare C client share: security suite 0 (AES-128-GCM, 12-octet tags), the wrapper header,
 * and the keys of meter number N. Key and nonce are set for each message, as a fleet with a key a meter needs it. */
#ifndef SUITE0_H
#define SUITE0_H

#include <openssl/evp.h>
#include <stdint.h>
#include <string.h>

enum { TAG = 12, SC_AUTH_ENC = 0x30, SC_AUTH = 0x10, WRAPPER = 8 };

/* Made for the benches and used nowhere else; the meter's number is folded into the last octets. */
static const uint8_t BASE_EK[16] = {0x7b, 0x1e, 0x52, 0xc9, 0x04, 0x3d, 0x86, 0xaf, 0x60, 0x19, 0xd2, 0x8b, 0x44, 0xfd, 0xb6, 0x6f};
static const uint8_t BASE_AK[16] = {0x2a, 0x93, 0xec, 0x45, 0xbe, 0x17, 0x70, 0xd9, 0x32, 0x8b, 0xe4, 0x5d, 0xa6, 0x0f, 0x68, 0xc1};
static const uint8_t CLIENT_TITLE[8] = {'B', 'E', 'N', 0, 0, 0, 0, 1};

static inline void put32(uint8_t *p, uint32_t v) { p[0] = v >> 24; p[1] = v >> 16; p[2] = v >> 8; p[3] = v; }
static inline uint32_t get32(const uint8_t *p) { return (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3]; }
static inline uint32_t get16(const uint8_t *p) { return p[0] << 8 | p[1]; }

static inline void key_of(const uint8_t base[16], uint32_t number, uint8_t key[16]) {
    memcpy(key, base, 16);
    for (int i = 0; i < 4; i++) key[12 + i] ^= (uint8_t)(number >> (24 - 8 * i));
}

static inline void title_of(uint32_t number, uint8_t title[8]) {
    memcpy(title, "IPB\x02", 4);
    put32(title + 4, number);
}

static inline void wrapper(uint8_t *p, uint16_t from, uint16_t to, uint16_t length) {
    p[0] = 0; p[1] = 1; p[2] = from >> 8; p[3] = from; p[4] = to >> 8; p[5] = to; p[6] = length >> 8; p[7] = length;
}

/* Cipher and authenticate `n` octets of `plain` into `out`, the tag behind; the octets written. */
static inline int seal(EVP_CIPHER_CTX *cx, const uint8_t ek[16], const uint8_t ak[16], const uint8_t title[8], uint32_t counter,
                       const uint8_t *plain, int n, uint8_t *out) {
    uint8_t iv[12], sc = SC_AUTH_ENC;
    int length;
    memcpy(iv, title, 8);
    put32(iv + 8, counter);
    EVP_EncryptInit_ex(cx, NULL, NULL, ek, iv);
    EVP_EncryptUpdate(cx, NULL, &length, &sc, 1);
    EVP_EncryptUpdate(cx, NULL, &length, ak, 16);
    EVP_EncryptUpdate(cx, out, &length, plain, n);
    EVP_EncryptFinal_ex(cx, out + n, &length);
    EVP_CIPHER_CTX_ctrl(cx, EVP_CTRL_AEAD_GET_TAG, TAG, out + n);
    return n + TAG;
}

/* Open `n` octets of text with the tag behind; the plain octets' number, or -1 if the tag is wrong. */
static inline int unseal(EVP_CIPHER_CTX *cx, const uint8_t ek[16], const uint8_t ak[16], const uint8_t title[8], uint32_t counter,
                         const uint8_t *text, int n, uint8_t *out) {
    uint8_t iv[12], sc = SC_AUTH_ENC;
    int length, plain = n - TAG;
    if (plain < 0) return -1;
    memcpy(iv, title, 8);
    put32(iv + 8, counter);
    EVP_DecryptInit_ex(cx, NULL, NULL, ek, iv);
    EVP_DecryptUpdate(cx, NULL, &length, &sc, 1);
    EVP_DecryptUpdate(cx, NULL, &length, ak, 16);
    EVP_DecryptUpdate(cx, out, &length, text, plain);
    EVP_CIPHER_CTX_ctrl(cx, EVP_CTRL_AEAD_SET_TAG, TAG, (void *)(text + plain));
    return EVP_DecryptFinal_ex(cx, out + plain, &length) == 1 ? plain : -1;
}

/* GMAC over a challenge: f(StoC) and f(CtoS) of HLS mechanism 5, as SC, counter, tag (17 octets). */
static inline void prove(EVP_CIPHER_CTX *cx, const uint8_t ek[16], const uint8_t ak[16], const uint8_t title[8], uint32_t counter,
                         const uint8_t *challenge, int n, uint8_t out[17]) {
    uint8_t iv[12];
    int length;
    memcpy(iv, title, 8);
    put32(iv + 8, counter);
    out[0] = SC_AUTH;
    put32(out + 1, counter);
    EVP_EncryptInit_ex(cx, NULL, NULL, ek, iv);
    EVP_EncryptUpdate(cx, NULL, &length, out, 1);
    EVP_EncryptUpdate(cx, NULL, &length, ak, 16);
    EVP_EncryptUpdate(cx, NULL, &length, challenge, n);
    EVP_EncryptFinal_ex(cx, iv, &length);
    EVP_CIPHER_CTX_ctrl(cx, EVP_CTRL_AEAD_GET_TAG, TAG, out + 5);
}

static inline EVP_CIPHER_CTX *new_context(int encrypt) {
    EVP_CIPHER_CTX *cx = EVP_CIPHER_CTX_new();
    EVP_CipherInit_ex(cx, EVP_aes_128_gcm(), NULL, NULL, NULL, encrypt);
    return cx;
}

#endif
