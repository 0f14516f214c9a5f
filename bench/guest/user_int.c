/* SPDX-License-Identifier: Apache-2.0 */
/* Integer code: loops, calls, hashing, sorting, branches. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

static uint64_t run_loop(uint64_t n)
{
    uint64_t a = 1, b = 2;

    /* One operation: 1000 rounds of dependent and independent integer work. */
    for (uint64_t i = 0; i < n; i++) {
        for (unsigned k = 0; k < 1000; k++) {
            a = a * 6364136223846793005u + 1442695040888963407u;
            b = (b << 7 | b >> 57) ^ (a >> 33);
            b += k;
        }
        BENCH_OPAQUE(a);
    }
    return a ^ b;
}

static uint64_t run_sieve(uint64_t n)
{
    static uint8_t composite[1 << 16];
    uint64_t primes = 0;

    for (uint64_t i = 0; i < n; i++) {
        memset(composite, 0, sizeof(composite));
        for (unsigned p = 2; p * p < sizeof(composite); p++)
            if (!composite[p])
                for (unsigned q = p * p; q < sizeof(composite); q += p)
                    composite[q] = 1;
        for (unsigned p = 2; p < sizeof(composite); p++)
            primes += !composite[p];
    }
    return primes;
}

static __attribute__((noinline)) uint64_t fib(unsigned k)
{
    BENCH_OPAQUE(k);
    return k < 2 ? k : fib(k - 1) + fib(k - 2);
}

static uint64_t run_fib(uint64_t n)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < n; i++)
        sum += fib(20);
    return sum;
}

#define SORT_COUNT 2048

static void fill(uint32_t *v)
{
    uint64_t seed = 88172645463325252u;

    for (size_t i = 0; i < SORT_COUNT; i++)
        v[i] = (uint32_t)bench_random(&seed);
}

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static uint64_t run_qsort(uint64_t n)
{
    static uint32_t v[SORT_COUNT];

    for (uint64_t i = 0; i < n; i++) {
        fill(v);
        qsort(v, SORT_COUNT, sizeof(v[0]), compare_u32);
    }
    return (uint64_t)v[0] << 32 | v[SORT_COUNT - 1];
}

static void sift(uint32_t *v, size_t root, size_t count)
{
    for (;;) {
        size_t child = root * 2 + 1;
        uint32_t t;

        if (child >= count)
            return;
        if (child + 1 < count && v[child + 1] > v[child])
            child++;
        if (v[root] >= v[child])
            return;
        t = v[root];
        v[root] = v[child];
        v[child] = t;
        root = child;
    }
}

static uint64_t run_heapsort(uint64_t n)
{
    static uint32_t v[SORT_COUNT];

    for (uint64_t i = 0; i < n; i++) {
        fill(v);
        for (size_t k = SORT_COUNT / 2; k-- > 0;)
            sift(v, k, SORT_COUNT);
        for (size_t k = SORT_COUNT - 1; k > 0; k--) {
            uint32_t t = v[0];

            v[0] = v[k];
            v[k] = t;
            sift(v, 0, k);
        }
    }
    return (uint64_t)v[0] << 32 | v[SORT_COUNT - 1];
}

static uint8_t text[4096];

static int setup_text(void)
{
    uint64_t seed = 362436069;

    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (uint8_t)bench_random(&seed);
    return 0;
}

static uint64_t run_crc32(uint64_t n)
{
    static uint32_t table[256];
    uint32_t crc = 0;

    if (!table[1]) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;

            for (int k = 0; k < 8; k++)
                c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
            table[i] = c;
        }
    }
    for (uint64_t i = 0; i < n; i++) {
        crc = ~0u;
        for (size_t k = 0; k < sizeof(text); k++)
            crc = table[(crc ^ text[k]) & 0xff] ^ crc >> 8;
    }
    return ~crc;
}

static uint32_t sha_round_constant[64];

/* FIPS 180-4: the constants are the fractional parts of cube roots of primes; computed, not listed.
 */
static void sha_constants(void)
{
    unsigned found = 0;

    for (uint64_t p = 2; found < 64; p++) {
        unsigned __int128 target = (unsigned __int128)p << 96;
        uint64_t low = 0, high = UINT64_C(8) << 32;
        int prime = 1;

        for (uint64_t d = 2; d * d <= p; d++)
            prime &= p % d != 0;
        if (!prime)
            continue;
        while (high - low > 1) { /* floor(cbrt(p) * 2^32) */
            uint64_t mid = (low + high) / 2;

            if ((unsigned __int128)mid * mid * mid <= target)
                low = mid;
            else
                high = mid;
        }
        sha_round_constant[found++] = (uint32_t)low;
    }
}

static inline uint32_t rotate(uint32_t x, int k)
{
    return x >> k | x << (32 - k);
}

static void sha_block(uint32_t h[8], const uint8_t *p)
{
    uint32_t w[64], s[8];

    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)p[i * 4] << 24 | (uint32_t)p[i * 4 + 1] << 16 |
               (uint32_t)p[i * 4 + 2] << 8 | p[i * 4 + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];

        w[i] = w[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + w[i - 7] +
               (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
    }
    memcpy(s, h, sizeof(s));
    for (int i = 0; i < 64; i++) {
        uint32_t e = s[4], a = s[0];
        uint32_t t1 = s[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) +
                      ((e & s[5]) ^ (~e & s[6])) + sha_round_constant[i] + w[i];
        uint32_t t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) +
                      ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));

        memmove(s + 1, s, 7 * sizeof(s[0]));
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++)
        h[i] += s[i];
}

static int setup_sha256(void)
{
    sha_constants();
    return setup_text();
}

static uint64_t run_sha256(uint64_t n)
{
    uint32_t h[8] = {0};

    for (uint64_t i = 0; i < n; i++) {
        static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                          0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

        memcpy(h, start, sizeof(h));
        for (size_t k = 0; k < sizeof(text); k += 64)
            sha_block(h, text + k);
    }
    return (uint64_t)h[0] << 32 | h[7];
}

/* A small register machine, dispatched by a switch: what scripting languages look like. */
enum { OP_ADD, OP_SUB, OP_XOR, OP_SHIFT, OP_LOAD, OP_STORE, OP_LESS, OP_JUMP, OP_DEC, OP_END };

static uint64_t run_switch(uint64_t n)
{
    static const uint8_t code[] = {
        OP_LOAD, 1, 0, OP_ADD, 0, 1, OP_XOR, 2, 0, OP_SHIFT, 2, 3, OP_STORE, 2, 1, OP_SUB, 3, 2,
        OP_LESS, 4, 3, OP_ADD, 1, 4, OP_DEC, 5, 0, OP_JUMP,  5, 0, OP_END,   0, 0,
    };
    uint64_t sum = 0;

    for (uint64_t i = 0; i < n; i++) {
        uint64_t r[8] = {1, 2, 3, 4, 5, 100, 7, 8}, memory[8] = {0};
        const uint8_t *pc = code;

        for (int running = 1; running; pc += 3) {
            uint8_t a = pc[1] & 7, b = pc[2] & 7;

            switch (pc[0]) {
            case OP_ADD:
                r[a] += r[b];
                break;
            case OP_SUB:
                r[a] -= r[b];
                break;
            case OP_XOR:
                r[a] ^= r[b];
                break;
            case OP_SHIFT:
                r[a] = r[a] << 1 | r[a] >> 63;
                break;
            case OP_LOAD:
                r[a] += memory[b];
                break;
            case OP_STORE:
                memory[b] = r[a];
                break;
            case OP_LESS:
                r[a] = r[a] < r[b];
                break;
            case OP_DEC:
                r[a]--;
                break;
            case OP_JUMP:
                if (r[a])
                    pc = code - 3;
                break;
            default:
                running = 0;
                break;
            }
        }
        sum += r[2];
    }
    return sum;
}

/* Calls through a table of functions, as objects with virtual methods make. */
static __attribute__((noinline)) uint64_t method_add(uint64_t x)
{
    return x + 3;
}
static __attribute__((noinline)) uint64_t method_mix(uint64_t x)
{
    return x * 31 ^ x >> 5;
}
static __attribute__((noinline)) uint64_t method_not(uint64_t x)
{
    return ~x;
}
static __attribute__((noinline)) uint64_t method_odd(uint64_t x)
{
    return x | 1;
}

static uint64_t run_indirect(uint64_t n)
{
    static uint64_t (*volatile const methods[4])(uint64_t) = {method_add, method_mix, method_not,
                                                              method_odd};
    uint64_t x = 1, seed = 521288629;

    for (uint64_t i = 0; i < n; i++) {
        for (int k = 0; k < 100; k++) {
            x = methods[k & 3](x);
            x = methods[bench_random(&seed) & 3](x);
        }
    }
    return x;
}

/* Scanning text: short unpredictable branches and byte loads. */
static uint64_t run_parse(uint64_t n)
{
    uint64_t words = 0, numbers = 0;

    for (uint64_t i = 0; i < n; i++) {
        uint64_t value = 0;
        int in_word = 0;

        for (size_t k = 0; k < sizeof(text); k++) {
            uint8_t c = text[k] & 0x7f;

            if (c >= '0' && c <= '9') {
                value = value * 10 + (c - '0');
            } else if (c > ' ') {
                words += !in_word;
                in_word = 1;
            } else {
                numbers += value;
                value = 0;
                in_word = 0;
            }
        }
    }
    return words << 32 ^ numbers;
}

const struct bench bench_int[] = {
    {"loop", "user-int", run_loop, NULL, NULL},
    {"sieve", "user-int", run_sieve, NULL, NULL},
    {"fib", "user-int", run_fib, NULL, NULL},
    {"qsort", "user-int", run_qsort, NULL, NULL},
    {"heapsort", "user-int", run_heapsort, NULL, NULL},
    {"crc32", "user-int", run_crc32, setup_text, NULL},
    {"sha256", "user-int", run_sha256, setup_sha256, NULL},
    {"switch", "user-int", run_switch, NULL, NULL},
    {"indirect", "user-int", run_indirect, NULL, NULL},
    {"parse", "user-int", run_parse, setup_text, NULL},
};
const size_t bench_int_count = ARRAY_SIZE(bench_int);
