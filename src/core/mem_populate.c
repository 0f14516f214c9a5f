/* SPDX-License-Identifier: Apache-2.0 */
/* Guest RAM is populated a chunk at a time, where it is first touched. */
#include "base/bits.h"
#include "core/host.h"
#include "core/mem.h"

void guest_mem_track(struct guest_mem *m)
{
    for (unsigned i = 0; i < m->n; i++) {
        struct mem_slot *s = &m->slot[i];

        if (!s->touched && !s->readonly)
            s->touched = host_zalloc(((s->size >> MEM_CHUNK_SHIFT) / 64 + 1) * sizeof(u64));
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

void guest_mem_populate(const struct mem_slot *s, gpa_t a, u64 len)
{
    u64 first = (a.v - s->gpa) >> MEM_CHUNK_SHIFT;
    u64 last = (a.v + len - 1 - s->gpa) >> MEM_CHUNK_SHIFT;

    for (u64 i = first; i <= last; i++) {
        u64 off = i << MEM_CHUNK_SHIFT, n = BIT64(MEM_CHUNK_SHIFT);
        u64 *word = &s->touched[i / 64], bit = BIT64(i % 64);

        if (!(__atomic_load_n(word, __ATOMIC_RELAXED) & bit) &&
            !(__atomic_fetch_or(word, bit, __ATOMIC_RELAXED) & bit))
            host_populate(s->host + off, n < s->size - off ? n : s->size - off, true);
    }
}
