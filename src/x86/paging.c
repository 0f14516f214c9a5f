/* SPDX-License-Identifier: Apache-2.0 */
/* The page-table walk: 32-bit, PAE, 4-level and 5-level paging (SDM 3A chapter 4). */
#include "x86/paging.h"

/* Bits of paging-structure entries (SDM 3A tables 4-5 to 4-20). */
#define PTE_P BIT64(0)
#define PTE_RW BIT64(1)
#define PTE_US BIT64(2)
#define PTE_A BIT64(5)
#define PTE_D BIT64(6)
#define PTE_PS BIT64(7)
#define PTE_G BIT64(8)
#define PTE_XD BIT64(63)

#define MAX_LEVELS 5

/* Rights gathered so far and the entries that gave them, for the accessed and dirty bits. */
struct path {
    struct {
        void *host; /* NULL: not RAM, bits are not written back */
        u64 gpa;
        u64 val;
    } level[MAX_LEVELS];
    unsigned n;
    u64 rights; /* AND of the entries' R/W and U/S */
    bool xd;    /* OR of the entries' XD, when EFER.NXE */
};

static u64 read_entry(const struct x86_walk_mem *m, u64 gpa, unsigned size, void **host)
{
    u8 *p = m->ptr(m->opaque, gpa & ~(u64)7);
    if (unlikely(!p)) {
        *host = NULL;
        return size_mask(size);
    }
    p += gpa & 7;
    *host = p;
    return size == 8 ? __atomic_load_n((u64 *)p, __ATOMIC_RELAXED)
                     : __atomic_load_n((u32 *)p, __ATOMIC_RELAXED);
}

/* Atomically turns old into old|bits; false when the entry has changed meanwhile. */
static bool set_bits(void *host, unsigned size, u64 old, u64 bits)
{
    if (size == 8) {
        u64 expect = old;
        return __atomic_compare_exchange_n((u64 *)host, &expect, old | bits, false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    u32 expect = (u32)old;
    return __atomic_compare_exchange_n((u32 *)host, &expect, (u32)(old | bits), false,
                                       __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* The part of a page-fault error code that the access alone decides (SDM 3A 4.7). */
static u32 access_error(const struct x86_vcpu_state *s, unsigned access)
{
    u32 e = 0;
    if (access & X86_ACC_WRITE)
        e |= PFEC_W;
    if (access & X86_ACC_USER)
        e |= PFEC_U;
    if ((access & X86_ACC_EXEC) &&
        ((s->cr4 & CR4_SMEP) || ((s->cr4 & CR4_PAE) && (s->efer & EFER_NXE))))
        e |= PFEC_I;
    return e;
}

/* SDM 3A 4.6: access rights of the translation for this access. */
static bool permitted(const struct x86_vcpu_state *s, const struct path *p, unsigned access)
{
    bool user_page = (p->rights & PTE_US) != 0;
    if (access & X86_ACC_EXEC) {
        if (p->xd)
            return false;
        return (access & X86_ACC_USER) ? user_page : !(user_page && (s->cr4 & CR4_SMEP));
    }
    if (access & X86_ACC_USER)
        return user_page && (!(access & X86_ACC_WRITE) || (p->rights & PTE_RW));
    if (user_page && (access & X86_ACC_SMAP))
        return false;
    return !(access & X86_ACC_WRITE) || (p->rights & PTE_RW) || !(s->cr0 & CR0_WP);
}

/*
 * Sets A in every entry of the path and D in the leaf for writes. false: an entry changed under our
 * eyes, walk again.
 */
static bool mark_used(const struct x86_walk_mem *m, struct path *p, unsigned size, unsigned access)
{
    for (unsigned i = 0; i < p->n; i++) {
        u64 want = PTE_A;
        if (i == p->n - 1 && (access & X86_ACC_WRITE))
            want |= PTE_D;
        u64 val = p->level[i].val;
        if ((val & want) == want || !p->level[i].host)
            continue;
        if (!set_bits(p->level[i].host, size, val, want))
            return false;
        p->level[i].val = val | want;
        if (m->touched)
            m->touched(m->opaque, p->level[i].gpa);
    }
    return true;
}

/* Takes the rights of one present entry into the path. */
static void add_level(struct path *p, void *host, u64 gpa, u64 val)
{
    p->level[p->n].host = host;
    p->level[p->n].gpa = gpa;
    p->level[p->n].val = val;
    p->n++;
    p->rights &= val;
}

enum step { STEP_DONE, STEP_AGAIN, STEP_FAULT };

/* Common end of a walk that found a leaf mapping `size` bytes at base. */
static enum step finish(const struct x86_vcpu_state *s, const struct x86_walk_mem *m,
                        struct path *p, u64 gva, u64 base, u64 page, unsigned entry_size,
                        unsigned access, struct x86_walk *w)
{
    if (!permitted(s, p, access)) {
        w->error = access_error(s, access) | PFEC_P;
        return STEP_FAULT;
    }
    if (!(access & X86_ACC_NO_SET_AD) && !mark_used(m, p, entry_size, access))
        return STEP_AGAIN;
    u64 leaf = p->level[p->n - 1].val;
    w->gpa = base | (gva & (page - 1));
    w->page_size = page;
    w->user = (p->rights & PTE_US) != 0;
    w->writable = (p->rights & PTE_RW) != 0;
    w->executable = !p->xd;
    w->global = (leaf & PTE_G) && (s->cr4 & CR4_PGE);
    w->dirty = (leaf & PTE_D) != 0;
    w->error = 0;
    return STEP_DONE;
}

static enum step not_present(const struct x86_vcpu_state *s, unsigned access, struct x86_walk *w)
{
    w->error = access_error(s, access);
    return STEP_FAULT;
}

static enum step reserved(const struct x86_vcpu_state *s, unsigned access, struct x86_walk *w)
{
    w->error = access_error(s, access) | PFEC_P | PFEC_RSVD;
    return STEP_FAULT;
}

/* 32-bit paging, with 4-MByte pages and PSE-36 (SDM 3A 4.3). */
static enum step walk32(const struct x86_vcpu_state *s, const struct x86_walk_mem *m, u32 gva,
                        unsigned access, struct x86_walk *w)
{
    struct path p = {.rights = ~(u64)0};
    void *host;
    u64 at = (s->cr3 & 0xfffff000) | (gva >> 22 << 2);
    u64 e = read_entry(m, at, 4, &host);

    if (!(e & PTE_P))
        return not_present(s, access, w);
    if ((e & PTE_PS) && (s->cr4 & CR4_PSE)) {
        /* Bits 20:13 are address bits 39:32 as far as MAXPHYADDR goes; the others up to 21 are
         * reserved (table 4-4). */
        unsigned phys = m->phys_bits && m->phys_bits < 40 ? m->phys_bits : 40;
        unsigned low = phys > 32 ? phys - 19 : 13;
        if (e & MASK64(21, low))
            return reserved(s, access, w);
        add_level(&p, host, at, e);
        u64 base = (e & 0xffc00000) | ((e & MASK64(20, 13)) << 19);
        return finish(s, m, &p, gva, base, BIT64(22), 4, access, w);
    }
    add_level(&p, host, at, e);

    at = (e & 0xfffff000) | (gva >> 12 & 0x3ff) << 2;
    e = read_entry(m, at, 4, &host);
    if (!(e & PTE_P))
        return not_present(s, access, w);
    add_level(&p, host, at, e);
    return finish(s, m, &p, gva, e & 0xfffff000, PAGE_SIZE, 4, access, w);
}

/*
 * The 8-byte entry formats: PAE (levels from 2: the PDPTE comes from the registers), 4-level (from
 * 4) and 5-level (from 5) paging (SDM 3A 4.4, 4.5).
 */
static enum step walk64(const struct x86_vcpu_state *s, const struct x86_walk_mem *m, u64 gva,
                        unsigned access, struct x86_walk *w)
{
    struct path p = {.rights = ~(u64)0};
    unsigned phys = m->phys_bits && m->phys_bits < 52 ? m->phys_bits : 52;
    u64 addr_bits = MASK64(51, 12);
    u64 rsvd = phys < 52 ? MASK64(51, phys) : 0;
    unsigned level;
    u64 table;

    if (!(s->efer & EFER_NXE))
        rsvd |= PTE_XD;
    if (s->efer & EFER_LMA) {
        level = s->cr4 & CR4_LA57 ? 5 : 4;
        table = s->cr3 & addr_bits;
    } else {
        u64 pdpte = s->pdpte[gva >> 30 & 3];
        if (!(pdpte & PTE_P))
            return not_present(s, access, w);
        level = 2;
        table = pdpte & addr_bits;
        rsvd |= MASK64(62, 52); /* ignored in the long-mode formats (tables 4-9 to 4-11) */
    }

    for (;; level--) {
        unsigned shift = 12 + 9 * (level - 1);
        u64 at = table | (gva >> shift & 0x1ff) << 3;
        void *host;
        u64 e = read_entry(m, at, 8, &host);

        if (!(e & PTE_P))
            return not_present(s, access, w);
        bool leaf = level == 1;
        u64 bad = rsvd;
        if (level >= 2 && (e & PTE_PS)) {
            if (level > 3 || (level == 3 && m->no_gbpages)) {
                bad |= PTE_PS;
            } else {
                leaf = true;
                bad |= MASK64(shift - 1, 13); /* bit 12 is PAT */
            }
        }
        if (e & bad)
            return reserved(s, access, w);
        add_level(&p, host, at, e);
        p.xd |= (e & PTE_XD) != 0;
        if (leaf)
            return finish(s, m, &p, gva, e & addr_bits & ~(BIT64(shift) - 1), BIT64(shift), 8,
                          access, w);
        table = e & addr_bits;
    }
}

bool x86_walk(const struct x86_vcpu_state *s, const struct x86_walk_mem *m, u64 gva,
              unsigned access, struct x86_walk *w)
{
    if (!(s->efer & EFER_LMA))
        gva = (u32)gva;
    if (!(s->cr0 & CR0_PG)) {
        *w = (struct x86_walk){.gpa = gva,
                               .page_size = BIT64(30),
                               .user = true,
                               .writable = true,
                               .executable = true,
                               .dirty = true};
        return true;
    }
    for (;;) {
        enum step r =
            s->cr4 & CR4_PAE ? walk64(s, m, gva, access, w) : walk32(s, m, (u32)gva, access, w);
        if (likely(r != STEP_AGAIN))
            return r == STEP_DONE;
    }
}

bool x86_load_pdptes(const struct x86_walk_mem *m, u64 cr3, u64 out[4])
{
    unsigned phys = m->phys_bits && m->phys_bits < 52 ? m->phys_bits : 52;
    u64 rsvd = MASK64(63, phys) | MASK64(8, 5) | MASK64(2, 1);

    for (unsigned i = 0; i < 4; i++) {
        void *host;
        out[i] = read_entry(m, (cr3 & 0xffffffe0) + 8 * i, 8, &host);
        if ((out[i] & PTE_P) && (out[i] & rsvd))
            return false;
    }
    return true;
}
