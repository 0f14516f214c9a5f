/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest-physical RAM and ROM. Slots are added while the board is built and never change while vCPUs
 * run, so readers take no lock. Everything else in the address space is the MMIO bus (bus.h).
 */
#ifndef TRIVISOR_CORE_MEM_H
#define TRIVISOR_CORE_MEM_H

#include "core/addr.h"

#define MEM_SLOTS_MAX 16
#define MEM_CHUNK_SHIFT 16 /* RAM is populated in pieces of 64 KiB */

struct mem_slot {
    u64 gpa, size; /* page-aligned */
    u8 *host;
    bool readonly;
    u64 *touched; /* a bit a chunk: it has been populated; NULL: not kept */
    u64 *regions; /* with it, a bit a large page of the host (mem_populate.c) */
};

struct guest_mem {
    struct mem_slot slot[MEM_SLOTS_MAX];
    unsigned n;
};

/* Adds RAM (or ROM: writes are dropped). 0, -EINVAL (unaligned, overlap) or -ENOSPC. host stays the
 * caller's. */
int guest_mem_add(struct guest_mem *m, gpa_t base, u64 size, void *host, bool readonly);
/* Begins, ends keeping which chunks have been touched. Before vCPUs run; after. */
void guest_mem_track(struct guest_mem *m);
void guest_mem_untrack(struct guest_mem *m);

/* Slot holding gpa, or NULL. */
const struct mem_slot *guest_mem_slot(const struct guest_mem *m, gpa_t a);

/* Host address of [a, a+len) when it lies wholly in one slot, else NULL. For ROM only to be read.
 */
void *guest_mem_ptr(const struct guest_mem *m, gpa_t a, u64 len);

/* Guest address of a host address inside one of the slots. false: it is in none. */
bool guest_mem_gpa(const struct guest_mem *m, const void *host, gpa_t *a);

/* [a, a+len) of slot s is about to be accessed: populates the chunks that are new. Makes first
 * touches cheap, changes nothing else. Any thread. */
void guest_mem_populate(const struct mem_slot *s, gpa_t a, u64 len);

static inline void guest_mem_touch(const struct mem_slot *s, gpa_t a, u64 len)
{
    u64 chunk = (a.v - s->gpa) >> MEM_CHUNK_SHIFT;

    if (len && s->touched &&
        (((a.v + len - 1 - s->gpa) >> MEM_CHUNK_SHIFT) != chunk ||
         !(__atomic_load_n(&s->touched[chunk / 64], __ATOMIC_RELAXED) >> (chunk % 64) & 1)))
        guest_mem_populate(s, a, len);
}

/* Copy out of / into guest memory across slots; 0, or -EFAULT when some byte is no RAM (nothing
 * copied). Writes to ROM are -EFAULT. Loaders and DMA use these; writes here do not invalidate
 * translated code: vm_dma_write does. */
int guest_mem_read(const struct guest_mem *m, gpa_t a, void *buf, u64 len);
int guest_mem_write(const struct guest_mem *m, gpa_t a, const void *buf, u64 len);

#endif
