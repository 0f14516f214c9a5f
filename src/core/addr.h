/* SPDX-License-Identifier: Apache-2.0 */
/* Guest addresses as types of their own, so that a mix-up does not compile. */
#ifndef TRIVISOR_CORE_ADDR_H
#define TRIVISOR_CORE_ADDR_H

#include "base/types.h"

typedef struct {
    u64 v;
} gpa_t; /* guest-physical */

typedef struct {
    u64 v;
} gva_t; /* guest-linear */

static inline gpa_t gpa(u64 v)
{
    return (gpa_t){v};
}

static inline gva_t gva(u64 v)
{
    return (gva_t){v};
}

#endif
