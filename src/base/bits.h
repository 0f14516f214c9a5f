/* SPDX-License-Identifier: Apache-2.0 */
/* Bit and alignment arithmetic. */
#ifndef TRIVISOR_BASE_BITS_H
#define TRIVISOR_BASE_BITS_H

#include "base/types.h"

#define BIT32(n) ((u32)1 << (n))
#define BIT64(n) ((u64)1 << (n))

/* Bits hi..lo set, both inclusive, 0 <= lo <= hi <= 63. */
#define MASK64(hi, lo) ((~(u64)0 >> (63 - (hi))) & (~(u64)0 << (lo)))

#define PAGE_SHIFT 12
#define PAGE_SIZE ((u64)1 << PAGE_SHIFT)
#define PAGE_MASK (~(PAGE_SIZE - 1))

static inline u64 align_down(u64 v, u64 a)
{
    return v & ~(a - 1);
}

static inline u64 align_up(u64 v, u64 a)
{
    return (v + a - 1) & ~(a - 1);
}

/* Sign-extends the low `bits` bits of v (1..64). */
static inline u64 sign_extend(u64 v, unsigned bits)
{
    return (u64)((s64)(v << (64 - bits)) >> (64 - bits));
}

/* All ones in the low `bytes` bytes (1..8). */
static inline u64 size_mask(unsigned bytes)
{
    return ~(u64)0 >> (64 - 8 * bytes);
}

/* True when a + b fits u64; the sum in *out. */
static inline bool add_ok(u64 a, u64 b, u64 *out)
{
    return !__builtin_add_overflow(a, b, out);
}

#endif
