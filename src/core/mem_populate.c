/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest RAM is populated a chunk at a time, where it is first touched; and, since guests come to
 * their memory mostly in order, the large page that they will come to next by another thread.
 */
#include "base/bits.h"
#include "core/host.h"
#include "core/mem.h"

#define REGION_SHIFT 21 /* of a large page of the host */

static u64 chunk_words(const struct mem_slot *s)
{
    return (s->size >> MEM_CHUNK_SHIFT) / 64 + 1;
}

void guest_mem_track(struct guest_mem *m)
{
    for (unsigned i = 0; i < m->n; i++) {
        struct mem_slot *s = &m->slot[i];
        u64 regions = (s->size >> REGION_SHIFT) + 2;

        if (s->touched || s->readonly)
            continue;
        s->touched = host_zalloc((chunk_words(s) + regions / 64 + 1) * sizeof(u64));
        if (s->touched)
            s->regions = s->touched + chunk_words(s);
    }
}

void guest_mem_untrack(struct guest_mem *m)
{
    for (unsigned i = 0; i < m->n; i++) {
        if (m->slot[i].touched)
            host_free(m->slot[i].touched);
        m->slot[i].touched = NULL;
    }
}

static bool known(const struct mem_slot *s, u64 region)
{
    return __atomic_load_n(&s->regions[region / 64], __ATOMIC_RELAXED) >> (region % 64) & 1;
}

/* The first touch of something in the region at host address p: in which order did it come? */
static void look_ahead(const struct mem_slot *s, u8 *p)
{
    u64 first = (u64)s->host >> REGION_SHIFT, last = (u64)(s->host + s->size - 1) >> REGION_SHIFT;
    u64 r = ((u64)p >> REGION_SHIFT) - first, next;

    if (__atomic_fetch_or(&s->regions[r / 64], BIT64(r % 64), __ATOMIC_RELAXED) & BIT64(r % 64))
        return;
    if (r && known(s, r - 1) && first + r < last && !known(s, r + 1))
        next = r + 1;
    else if (r && known(s, r + 1) && !known(s, r - 1))
        next = r - 1;
    else
        return;
    /* Regions at the ends are not all the slot's. */
    if (next && first + next < last)
        host_populate_later((u8 *)((first + next) << REGION_SHIFT), BIT64(REGION_SHIFT), true);
}

void guest_mem_populate(const struct mem_slot *s, gpa_t a, u64 len)
{
    u64 first = (a.v - s->gpa) >> MEM_CHUNK_SHIFT;
    u64 last = (a.v + len - 1 - s->gpa) >> MEM_CHUNK_SHIFT;

    for (u64 i = first; i <= last; i++) {
        u64 off = i << MEM_CHUNK_SHIFT, n = BIT64(MEM_CHUNK_SHIFT);
        u64 *word = &s->touched[i / 64], bit = BIT64(i % 64);

        if (!(__atomic_load_n(word, __ATOMIC_RELAXED) & bit) &&
            !(__atomic_fetch_or(word, bit, __ATOMIC_RELAXED) & bit)) {
            host_populate(s->host + off, n < s->size - off ? n : s->size - off, true);
            look_ahead(s, s->host + off);
        }
    }
}
