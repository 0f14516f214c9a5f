/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem* in general registers only. The C library's versions use vector registers, which hold the
 * guest's state while the layers compiled for general registers run, and the compiler calls these
 * functions by itself for structure copies; so the whole program uses these.
 */
#include "base/types.h"

void *memcpy(void *restrict dst, const void *restrict src, size_t n);
void *memmove(void *dst, const void *src, size_t n);
void *memset(void *dst, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);

static inline void copy8(u8 *d, const u8 *s)
{
    u64 v;

    __builtin_memcpy(&v, s, 8);
    __builtin_memcpy(d, &v, 8);
}

void *memcpy(void *restrict dst, const void *restrict src, size_t n)
{
    u8 *d = dst;
    const u8 *s = src;

    if (n >= 8 && n <= 64) {
        /* The last eight bytes may overlap what is done already. */
        for (size_t i = 0; i + 8 < n; i += 8)
            copy8(d + i, s + i);
        copy8(d + n - 8, s + n - 8);
        return dst;
    }
    __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
    return dst;
}

void *memmove(void *dst, const void *src, size_t n)
{
    u8 *d = dst;
    const u8 *s = src;

    if ((size_t)(d - s) >= n) {
        __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
        return dst;
    }
    d += n - 1;
    s += n - 1;
    __asm__ volatile("std\n\trep movsb\n\tcld" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
    return dst;
}

void *memset(void *dst, int c, size_t n)
{
    u8 *d = dst;

    __asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
    return dst;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const u8 *x = a, *y = b;

    for (size_t i = 0; i < n; i++)
        if (x[i] != y[i])
            return x[i] < y[i] ? -1 : 1;
    return 0;
}
