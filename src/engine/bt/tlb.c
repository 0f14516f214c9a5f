/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Soft TLBs. A window's read and write tables hold what its class may do in its address space; an
 * entry is stale until the guest flushes it, as on hardware (SDM 3A 4.10). A guest page with
 * translated code never has a write entry, so that every write to it comes to bt_tlb_fill.
 */
#include "engine/bt/bt_priv.h"

static void *walk_ptr(void *opaque, u64 gpa)
{
    struct bt_vcpu *c = opaque;

    return guest_mem_ptr(&c->bt->vm->mem, (gpa_t){gpa}, 8);
}

static unsigned class_of(const struct bt_vcpu *c, unsigned access)
{
    if (access & X86_ACC_USER)
        return BT_USER;
    if ((access & X86_ACC_SMAP) || !(c->env->s.cr4 & CR4_SMAP))
        return BT_KERNEL;
    return BT_KERNEL_AC;
}

static unsigned class_access(const struct bt_vcpu *c, unsigned cls)
{
    if (cls == BT_USER)
        return X86_ACC_USER;
    if (cls == BT_KERNEL && (c->env->s.cr4 & CR4_SMAP))
        return X86_ACC_SMAP;
    return 0;
}

bool bt_tlb_walk(struct bt_vcpu *c, u64 lin, unsigned access, struct x86_walk *w)
{
    struct x86_walk_mem m = {
        .ptr = walk_ptr, .opaque = c, .phys_bits = c->bt->vm->cpu_model.phys_bits};

    return x86_walk(&c->env->s, &m, lin, access, w);
}

bool bt_canonical(const struct bt_vcpu *c, u64 lin)
{
    return sign_extend(lin, c->env->s.cr4 & CR4_LA57 ? 57 : 48) == lin;
}

static void set_bit(u64 *map, unsigned i, bool v)
{
    if (v)
        map[i / 64] |= BIT64(i % 64);
    else
        map[i / 64] &= ~BIT64(i % 64);
}

static void log_slot(struct bt_log *l, unsigned slot)
{
    if (l->n < BT_LOG_SIZE)
        l->slot[l->n] = (u16)slot;
    if (l->n <= BT_LOG_SIZE)
        l->n++;
}

static void insert(struct bt_env *win, u64 lin, u8 *host_page, bool write, const struct x86_walk *w)
{
    struct bt_window_priv *p = bt_priv(win);
    unsigned i = (lin >> PAGE_SHIFT) & (BT_TLB_SIZE - 1);
    struct bt_tlb_entry *e = &bt_tlb(win, write)[i];

    e->host = (u64)(uintptr_t)host_page;
    e->delta = e->host - (lin & PAGE_MASK);
    set_bit(write ? p->global_w : p->global_r, i, w->global);
    if (!w->global)
        log_slot(write ? &p->log_w : &p->log_r, i);
    if (write)
        p->used_w = true;
    else
        p->used_r = true;
    if (w->page_size > PAGE_SIZE)
        bt_note_large(p->large, lin, w->page_size);
}

/* Where to look for write entries of a page, should it come to hold code. */
#define WROTE(cls) (1u << (cls))
#define WROTE_GLOBAL(cls) (16u << (cls)) /* an entry that the window's log does not list */

static void note_write_entry(struct bt_vm *bt, const struct mem_slot *slot,
                             const struct x86_walk *w, unsigned cls)
{
    u8 *at = &bt->wrote[slot - bt->vm->mem.slot][(w->gpa - slot->gpa) >> PAGE_SHIFT];
    u8 bits = (u8)(WROTE(cls) | (w->global ? WROTE_GLOBAL(cls) : 0));

    if ((__atomic_load_n(at, __ATOMIC_RELAXED) & bits) != bits)
        __atomic_fetch_or(at, bits, __ATOMIC_SEQ_CST);
}

/* One piece of an access within a page. NULL with *mmio or *fault set, or with neither: code page.
 */
static u8 *fill(struct bt_vcpu *c, unsigned cls, u64 lin, unsigned len, bool write,
                struct x86_walk *w, bool *faulted)
{
    struct bt_env *win = bt_window_env(c, cls, c->slot);
    unsigned access = (write ? X86_ACC_WRITE : X86_ACC_READ) | class_access(c, cls);
    const struct mem_slot *slot;
    u8 *host;

    *faulted = false;
    if (!bt_tlb_walk(c, lin, access, w)) {
        *faulted = true;
        return NULL;
    }
    slot = guest_mem_slot(&c->bt->vm->mem, (gpa_t){w->gpa});
    if (!slot || (write && slot->readonly))
        return NULL;
    host = slot->host + (w->gpa - slot->gpa);
    guest_mem_touch(slot, (gpa_t){w->gpa}, 1);
    c->stats.tlb_fills++;
    if (write) {
        bool entry =
            bt_canonical(c, lin) && likely(!c->bt->nwatches || !bt_page_watched(c->bt, lin, true));
        struct bt_page *page;

        note_write_entry(c->bt, slot, w, cls);
        page = bt_page_of(c->bt, w->gpa, false);
        /* In this order: the translator sets `lines` before it clears `translating`. */
        if (page && (__atomic_load_n(&page->translating, __ATOMIC_SEQ_CST) ||
                     __atomic_load_n(&page->lines, __ATOMIC_SEQ_CST))) {
            /* Another vCPU might translate between our look and the store. */
            if (c->bt->nvcpus > 1 || bt_code_overlaps(c->bt, w->gpa, len))
                return NULL;
            return host;
        }
        if (entry)
            insert(win, lin, host - (w->gpa & (PAGE_SIZE - 1)), true, w);
    }
    if (bt_canonical(c, lin) && likely(!c->bt->nwatches || !bt_page_watched(c->bt, lin, false)))
        insert(win, lin, host - (w->gpa & (PAGE_SIZE - 1)), false, w);
    return host;
}

static u8 *probe(struct bt_env *win, u64 lin, bool write)
{
    struct bt_tlb_entry *e = &bt_tlb(win, write)[(lin >> PAGE_SHIFT) & (BT_TLB_SIZE - 1)];

    if (bt_tlb_page(e) == (lin & PAGE_MASK))
        return (u8 *)(uintptr_t)(lin + e->delta);
    return NULL;
}

void *bt_tlb_fill(struct bt_vcpu *c, u64 lin, unsigned size, bool write)
{
    u64 off = lin & (PAGE_SIZE - 1);
    struct x86_walk w;
    bool faulted;
    u8 *host, *second;

    if (!bt_canonical(c, lin))
        return NULL;
    /* The interpreter will note it. */
    if (unlikely(c->bt->nwatches) &&
        bt_watched(c->bt, lin, size, write ? X86_ACC_WRITE | X86_ACC_ALSO_READ : X86_ACC_READ))
        return NULL;
    if (likely(off + size <= PAGE_SIZE)) {
        host = fill(c, c->env->cls, lin, size, write, &w, &faulted);
        if (likely(host || faulted || write) || c->lockstep ||
            !vcpu_mmio_is_plain(c->v, w.gpa, size))
            return host;
        /* Some kernels ask who they are for each lock: a copy for this one access to take. */
        c->apic_copy = (u32)vcpu_mmio_read(c->v, w.gpa, size);
        return &c->apic_copy;
    }
    /* Two pages: usable in place when the host's are neighbours too. */
    if (!bt_canonical(c, lin + size - 1))
        return NULL;
    host = fill(c, c->env->cls, lin, (unsigned)(PAGE_SIZE - off), write, &w, &faulted);
    if (!host)
        return NULL;
    second = fill(c, c->env->cls, lin + (PAGE_SIZE - off), (unsigned)(off + size - PAGE_SIZE),
                  write, &w, &faulted);
    return second == host + (PAGE_SIZE - off) ? host : NULL;
}

bool bt_tlb_dirty(struct bt_vcpu *c, u64 lin)
{
    struct x86_walk w;

    return bt_canonical(c, lin) &&
           bt_tlb_walk(c, lin, X86_ACC_READ | class_access(c, c->env->cls), &w) && w.writable &&
           w.dirty;
}

/* --- fetch
 * -------------------------------------------------------------------------------------------------
 */

static struct bt_itlb_entry *fetch_entry(struct bt_vcpu *c, unsigned cls, u64 lin, u32 *error)
{
    struct bt_window_priv *p = bt_priv(bt_window_env(c, cls, c->slot));
    struct bt_itlb_entry *e = &p->itlb[(lin >> PAGE_SHIFT) & (BT_ITLB_SIZE - 1)];
    const struct mem_slot *slot;
    struct x86_walk w;

    if (e->tag == ((lin & PAGE_MASK) | 1))
        return e;
    *error = 0;
    if (!bt_tlb_walk(c, lin, X86_ACC_EXEC | (cls == BT_USER ? X86_ACC_USER : 0), &w)) {
        *error = w.error | BIT32(31);
        return NULL;
    }
    slot = guest_mem_slot(&c->bt->vm->mem, (gpa_t){w.gpa});
    if (!slot)
        return NULL;
    e->tag = (lin & PAGE_MASK) | 1;
    e->gpa = w.gpa & PAGE_MASK;
    e->host = slot->host + (e->gpa - slot->gpa);
    e->global = w.global;
    if (w.page_size > PAGE_SIZE)
        bt_note_large(p->large, lin, w.page_size);
    p->used_ibl = true;
    return e;
}

bool bt_fetch(struct bt_vcpu *c, u64 lin, u64 *gpa, u8 **host)
{
    struct bt_itlb_entry *e;
    u32 error;

    if (!bt_canonical(c, lin))
        return false;
    e = fetch_entry(c, c->env->cls, lin, &error);
    if (!e)
        return false;
    *gpa = e->gpa | (lin & (PAGE_SIZE - 1));
    *host = e->host + (lin & (PAGE_SIZE - 1));
    return true;
}

static bool page_global(struct bt_vcpu *c, u64 lin)
{
    struct bt_itlb_entry *e = &bt_priv(bt_cur(c))->itlb[(lin >> PAGE_SHIFT) & (BT_ITLB_SIZE - 1)];

    return e->tag == ((lin & PAGE_MASK) | 1) && e->global;
}

bool bt_fetch_global(struct bt_vcpu *c, u64 lin)
{
    u64 off = lin & (PAGE_SIZE - 1);

    return page_global(c, lin) &&
           (off <= PAGE_SIZE - X86_INSN_MAX || page_global(c, lin + PAGE_SIZE - off));
}

/* --- writes to code ---
 *
 * The interpreter asks for an address and writes later; a translation made in between by another
 * vCPU would have the old bytes. So what it writes is remembered, and translations are dropped
 * after the instruction. A translation that starts before the write is over and ends after our look
 * is seen by page->translating: the translator raises that before it reads the bytes, and we look
 * at it after the write, both with full fences.
 */

static u64 gpa_of(struct bt_vcpu *c, const u8 *host)
{
    const struct guest_mem *m = &c->bt->vm->mem;

    for (unsigned i = 0; i < m->n; i++)
        if (host >= m->slot[i].host && host < m->slot[i].host + m->slot[i].size)
            return m->slot[i].gpa + (u64)(host - m->slot[i].host);
    CHECK(!"host address of no slot");
    return 0;
}

static void note_code_write(struct bt_vcpu *c, u64 gpa, unsigned len)
{
    if (c->ncode_writes) {
        unsigned last = c->ncode_writes - 1;

        if (c->code_write[last].gpa + c->code_write[last].len == gpa) {
            c->code_write[last].len += len;
            return;
        }
        if (c->ncode_writes == BT_CODE_WRITES) {
            /* A long string operation: take in everything between, down to all of memory. */
            u64 lo = c->code_write[last].gpa, hi = lo + c->code_write[last].len;

            lo = gpa < lo ? gpa : lo;
            hi = gpa + len > hi ? gpa + len : hi;
            c->code_write[last].gpa = lo;
            c->code_write[last].len = hi - lo > 0xffffffffu ? 0xffffffffu : (u32)(hi - lo);
            return;
        }
    }
    c->code_write[c->ncode_writes].gpa = gpa;
    c->code_write[c->ncode_writes++].len = len;
}

void bt_code_written(struct bt_vcpu *c)
{
    bool any = false;

    if (likely(!c->ncode_writes))
        return;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < c->ncode_writes && !any; i++) {
        u64 gpa = c->code_write[i].gpa, end = gpa + c->code_write[i].len;

        while (gpa < end && !any) {
            u64 n = PAGE_SIZE - (gpa & (PAGE_SIZE - 1));

            if (n > end - gpa)
                n = end - gpa;
            any = bt_code_may_overlap(c->bt, gpa, n);
            gpa += n;
        }
    }
    if (any) {
        bt_exclusive_begin(c->bt, c);
        for (unsigned i = 0; i < c->ncode_writes; i++)
            bt_cache_invalidate(c->bt, &c->stats, c->code_write[i].gpa, c->code_write[i].len);
        bt_exclusive_end(c->bt, c);
    }
    c->ncode_writes = 0;
}

/* --- the interpreter's accesses
 * --------------------------------------------------------------------------- */

int bt_translate(void *opaque, u64 gva, unsigned len, unsigned access, struct interp_ref *ref,
                 struct interp_fault *fault)
{
    struct bt_vcpu *c = opaque;
    unsigned cls = class_of(c, access);
    bool write = (access & 3) == X86_ACC_WRITE, faulted;
    struct x86_walk w;
    u8 *host;

    if ((access & 3) == X86_ACC_EXEC) {
        struct bt_itlb_entry *e;
        u32 error;

        e = fetch_entry(c, access & X86_ACC_USER ? BT_USER : BT_KERNEL, gva, &error);
        if (e) {
            ref->host = e->host + (gva & (PAGE_SIZE - 1));
            ref->gpa = e->gpa | (gva & (PAGE_SIZE - 1));
            return 0;
        }
        if (error) {
            *fault = (struct interp_fault){X86_PF, true, error & ~BIT32(31), gva};
            return -1;
        }
        ref->host = NULL;
        ref->gpa = 0;
        return 0;
    }
    if (access & X86_ACC_NO_SET_AD) {
        const struct mem_slot *slot;

        if (!bt_tlb_walk(c, gva, access, &w))
            goto page_fault;
        slot = guest_mem_slot(&c->bt->vm->mem, (gpa_t){w.gpa});
        ref->gpa = w.gpa;
        ref->host = slot ? slot->host + (w.gpa - slot->gpa) : NULL;
        return 0;
    }
    host = probe(bt_window_env(c, cls, c->slot), gva, write);
    if (!host) {
        host = fill(c, cls, gva, len, write, &w, &faulted);
        if (faulted)
            goto page_fault;
        if (unlikely(c->bt->nwatches))
            bt_watch_access(c, gva, len, access);
        ref->gpa = w.gpa;
        if (!host) {
            const struct mem_slot *slot = guest_mem_slot(&c->bt->vm->mem, (gpa_t){w.gpa});

            if (!slot || (write && slot->readonly)) {
                ref->host = NULL;
                return 0;
            }
            note_code_write(c, w.gpa, len);
            host = slot->host + (w.gpa - slot->gpa);
        }
    }
    /* The instruction may stop or let in other vCPUs before it writes, and one of them translate
     * this page. */
    if (write && c->bt->nvcpus > 1)
        note_code_write(c, gpa_of(c, host), len);
    if (c->lockstep && write)
        bt_lockstep_write(c->lockstep, host, len);
    ref->host = host;
    return 0;
page_fault:
    *fault = (struct interp_fault){X86_PF, true, w.error, gva};
    return -1;
}

/* --- forgetting
 * --------------------------------------------------------------------------------------------- */

static void empty_ibl(struct bt_vcpu *c, struct bt_env *win)
{
    struct bt_window_priv *p = bt_priv(win);

    for (unsigned i = 0; i < BT_IBL_SIZE; i++)
        bt_ibl(win)[i] = (u64)(uintptr_t)c->bt->exit_ibl;
    memset(p->ibl_kind, 0, BT_IBL_SIZE);
    memset(p->ibl_pages, 0, sizeof(p->ibl_pages));
    p->log_ibl.n = p->log_ibl_all.n = 0;
}

void bt_ibl_clear(struct bt_vcpu *c, struct bt_env *win)
{
    struct bt_window_priv *p = bt_priv(win);

    if (p->log_ibl_all.n > BT_LOG_SIZE) {
        empty_ibl(c, win);
        return;
    }
    for (unsigned k = 0; k < p->log_ibl_all.n; k++) {
        bt_ibl(win)[p->log_ibl_all.slot[k]] = (u64)(uintptr_t)c->bt->exit_ibl;
        p->ibl_kind[p->log_ibl_all.slot[k]] = 0;
    }
    if (p->log_ibl_all.n)
        memset(p->ibl_pages, 0, sizeof(p->ibl_pages));
    p->log_ibl.n = p->log_ibl_all.n = 0;
}

static void clear_table(struct bt_tlb_entry *t)
{
    for (unsigned i = 0; i < BT_TLB_SIZE; i++)
        bt_tlb_invalidate(t, i);
}

static void clear_non_global(struct bt_tlb_entry *t, const u64 *global, struct bt_log *l)
{
    unsigned n = l->n <= BT_LOG_SIZE ? l->n : BT_TLB_SIZE;

    for (unsigned k = 0; k < n; k++) {
        unsigned i = l->n <= BT_LOG_SIZE ? l->slot[k] : k;

        if (!(global[i / 64] & BIT64(i % 64)))
            bt_tlb_invalidate(t, i);
    }
    l->n = 0;
}

static void clear_non_global_ibl(struct bt_vcpu *c, struct bt_env *win)
{
    struct bt_window_priv *p = bt_priv(win);
    struct bt_log *l = &p->log_ibl;
    unsigned n = l->n <= BT_LOG_SIZE ? l->n : BT_IBL_SIZE;
    u64 *ibl = bt_ibl(win);

    for (unsigned k = 0; k < n; k++) {
        unsigned i = l->n <= BT_LOG_SIZE ? l->slot[k] : k;

        if (p->ibl_kind[i] == 1) {
            ibl[i] = (u64)(uintptr_t)c->bt->exit_ibl;
            p->ibl_kind[i] = 0;
        }
    }
    l->n = 0;
}

/* Forgets the targets in a page, and those before it whose instruction may reach into it. */
static void clear_ibl_page(struct bt_vcpu *c, struct bt_env *win, u64 page)
{
    u64 from = (page - X86_INSN_MAX) >> BT_IBL_SHIFT;
    struct bt_window_priv *p = bt_priv(win);

    /* Counted, for the first and the last page's ends wrap. */
    for (u64 k = 0; k < (PAGE_SIZE + X86_INSN_MAX + 3) >> BT_IBL_SHIFT; k++) {
        unsigned i = (from + k) & (BT_IBL_SIZE - 1);

        if (p->ibl_kind[i]) {
            bt_ibl(win)[i] = (u64)(uintptr_t)c->bt->exit_ibl;
            p->ibl_kind[i] = 0;
        }
    }
}

static void flush_window(struct bt_vcpu *c, struct bt_env *win, bool keep_global)
{
    struct bt_window_priv *p = bt_priv(win);

    p->stack_tag = BT_NO_CELL;
    p->stack_addend = 0;
    if (!p->used_r && !p->used_w && !p->used_ibl)
        return;
    c->stats.window_flushes++;
    for (unsigned i = 0; i < BT_ITLB_SIZE; i++)
        if (!keep_global || !p->itlb[i].global)
            p->itlb[i].tag = 0;
    if (keep_global) {
        clear_non_global(bt_tlb(win, false), p->global_r, &p->log_r);
        clear_non_global(bt_tlb(win, true), p->global_w, &p->log_w);
        clear_non_global_ibl(c, win);
        return;
    }
    if (p->used_r)
        clear_table(bt_tlb(win, false));
    if (p->used_w)
        clear_table(bt_tlb(win, true));
    if (p->used_ibl)
        bt_ibl_clear(c, win);
    p->used_r = p->used_w = p->used_ibl = false;
    p->log_r.n = p->log_w.n = 0;
    memset(p->large, 0, sizeof(p->large));
}

/* A window that was never used, in zeroed memory: there an entry is for page 0, which only the
 * first one can be asked for. The rest is not touched, for most windows never are. */
static void init_window(struct bt_vcpu *c, struct bt_env *win)
{
    bt_tlb_invalidate(bt_tlb(win, false), 0);
    bt_tlb_invalidate(bt_tlb(win, true), 0);
    empty_ibl(c, win);
    bt_priv(win)->stack_tag = BT_NO_CELL;
}

/*
 * The kernel's window is one for all address spaces: what it holds are global pages, as a rule, and
 * each space would have to learn them anew. The others are dropped when another space comes. A
 * kernel that has many (page-table isolation) gets a window in each space, as users have: one that
 * has many each other time, for on the way to the user's space it has, and on the way back it has
 * not.
 */
static void leave_slot(struct bt_vcpu *c, unsigned next)
{
    struct bt_env *win = bt_window_env(c, BT_KERNEL, 0);
    struct bt_window_priv *p = bt_priv(win);

    if (!c->one_kernel || c->slot == next)
        return;
    if (p->log_r.n + p->log_w.n <= BT_FEW_LOCAL) {
        c->many_local -= c->many_local > 0;
    } else if ((c->many_local += 2) >= BT_MANY_TIMES) {
        flush_window(c, win, false);
        c->one_kernel = false;
        for (unsigned slot = 1; slot < BT_SLOTS; slot++)
            if (c->ready & BIT32(slot))
                init_window(c, bt_window_env(c, BT_KERNEL, slot));
        return;
    }
    flush_window(c, win, true);
}

static void flush_slot(struct bt_vcpu *c, unsigned slot, bool keep_global)
{
    for (unsigned cls = 0; cls < BT_NCLASS; cls++)
        flush_window(c, bt_window_env(c, cls, slot), keep_global);
}

void bt_tlb_init(struct bt_vcpu *c)
{
    c->slot_tag[0].valid = true;
    c->one_kernel = true;
    bt_slot_ready(c);
}

/* A window is 600 KiB, and most are never used. */
void bt_slot_ready(struct bt_vcpu *c)
{
    c->ready |= (u8)BIT32(c->slot);
    for (unsigned cls = 0; cls < BT_NCLASS; cls++)
        if (!bt_window_shared(c, cls, c->slot))
            init_window(c, bt_window_env(c, cls, c->slot));
}

void bt_flush(void *opaque, enum interp_flush what, u16 pcid)
{
    struct bt_vcpu *c = opaque;

    c->remapped = true;
    for (unsigned slot = 0; slot < BT_SLOTS; slot++)
        if (what != INTERP_FLUSH_PCID ||
            (c->slot_tag[slot].valid && c->slot_tag[slot].pcid == pcid))
            flush_slot(c, slot, what != INTERP_FLUSH_ALL);
    if (what == INTERP_FLUSH_ALL)
        bt_far_check_all(c);
}

void bt_invlpg(void *opaque, u64 gva, u16 pcid)
{
    struct bt_vcpu *c = opaque;
    u64 page = gva & PAGE_MASK;
    unsigned i = (gva >> PAGE_SHIFT) & (BT_TLB_SIZE - 1);
    unsigned ii = (gva >> PAGE_SHIFT) & (BT_ITLB_SIZE - 1);
    unsigned bloom = BT_IBL_PAGE(gva);

    c->remapped = true;
    (void)pcid; /* forgetting the page in every address space is allowed (SDM 3A 4.10.4.1) */
    for (unsigned slot = 0; slot < BT_SLOTS; slot++)
        for (unsigned cls = 0; cls < BT_NCLASS; cls++) {
            struct bt_env *win = bt_window_env(c, cls, slot);
            struct bt_window_priv *p = bt_priv(win);

            if ((!p->used_r && !p->used_w && !p->used_ibl) || bt_window_shared(c, cls, slot))
                continue;
            if (bt_in_large(p->large, gva)) {
                flush_window(c, win, false);
                continue;
            }
            if (bt_tlb_page(&bt_tlb(win, false)[i]) == page)
                bt_tlb_invalidate(bt_tlb(win, false), i);
            if (bt_tlb_page(&bt_tlb(win, true)[i]) == page)
                bt_tlb_invalidate(bt_tlb(win, true), i);
            if (p->stack_tag == page) {
                p->stack_tag = BT_NO_CELL;
                p->stack_addend = 0;
            }
            if (p->itlb[ii].tag == (page | 1))
                p->itlb[ii].tag = 0;
            if (p->ibl_pages[bloom / 64] & BIT64(bloom % 64))
                clear_ibl_page(c, win, page);
        }
    bt_far_check(c, page);
}

void bt_cr3_written(void *opaque, u64 old, bool noflush)
{
    struct bt_vcpu *c = opaque;
    struct x86_vcpu_state *s = &c->env->s;
    u16 pcid = s->cr4 & CR4_PCIDE ? (u16)(s->cr3 & CR3_PCID) : 0;
    unsigned victim = 0;

    (void)old;
    c->remapped = true;
    c->stats.cr3_writes++;
    for (unsigned i = 0; i < BT_SLOTS; i++)
        if (c->slot_tag[i].valid && c->slot_tag[i].pcid == pcid) {
            leave_slot(c, i);
            c->slot = (u8)i;
            if (!noflush)
                flush_slot(c, i, true);
            c->slot_tag[i].used = ++c->slot_clock;
            return;
        }
    for (unsigned i = 0; i < BT_SLOTS; i++) {
        if (!c->slot_tag[i].valid) {
            victim = i;
            break;
        }
        if (c->slot_tag[i].used < c->slot_tag[victim].used)
            victim = i;
    }
    leave_slot(c, victim);
    flush_slot(c, victim, true);
    c->slot_tag[victim].valid = true;
    c->slot_tag[victim].pcid = pcid;
    c->slot_tag[victim].used = ++c->slot_clock;
    c->slot = (u8)victim;
}

bool bt_tlb_wrote(struct bt_vm *bt, u64 gpa)
{
    const struct mem_slot *s = guest_mem_slot(&bt->vm->mem, (gpa_t){gpa});

    return __atomic_load_n(&bt->wrote[s - bt->vm->mem.slot][(gpa - s->gpa) >> PAGE_SHIFT],
                           __ATOMIC_SEQ_CST) != 0;
}

static void drop_writes(struct bt_env *win, u64 host_page, bool global)
{
    const struct bt_log *l = &bt_priv(win)->log_w;
    struct bt_tlb_entry *t = bt_tlb(win, true);
    bool all = global || l->n > BT_LOG_SIZE;
    unsigned n = all ? BT_TLB_SIZE : l->n;

    bt_priv(win)->stack_tag = BT_NO_CELL;
    bt_priv(win)->stack_addend = 0;
    for (unsigned k = 0; k < n; k++) {
        unsigned i = all ? k : l->slot[k];

        if (t[i].host == host_page)
            bt_tlb_invalidate(t, i);
    }
}

void bt_tlb_drop_writes(struct bt_vm *bt, u64 gpa, const u8 *host_page)
{
    const struct mem_slot *s = guest_mem_slot(&bt->vm->mem, (gpa_t){gpa});
    u8 *wrote = &bt->wrote[s - bt->vm->mem.slot][(gpa - s->gpa) >> PAGE_SHIFT];

    for (unsigned n = 0; *wrote && n < bt->nvcpus; n++)
        for (unsigned slot = 0; slot < BT_SLOTS; slot++)
            for (unsigned cls = 0; cls < BT_NCLASS; cls++)
                if ((*wrote & WROTE(cls)) && !bt_window_shared(bt->vcpu[n], cls, slot))
                    drop_writes(bt_window_env(bt->vcpu[n], cls, slot), (u64)(uintptr_t)host_page,
                                *wrote & WROTE_GLOBAL(cls));
    *wrote = 0;
}

void bt_ibl_clear_all(struct bt_vcpu *c)
{
    for (unsigned cls = 0; cls < BT_NCLASS; cls++)
        for (unsigned slot = 0; slot < BT_SLOTS; slot++)
            if (!bt_window_shared(c, cls, slot) && bt_priv(bt_window_env(c, cls, slot))->used_ibl)
                bt_ibl_clear(c, bt_window_env(c, cls, slot));
}

void bt_ibl_set(struct bt_vcpu *c, u64 va, const u8 *code, bool global)
{
    struct bt_env *win = bt_cur(c);
    struct bt_window_priv *p = bt_priv(win);
    unsigned i = BT_IBL_INDEX(va);
    unsigned bloom = BT_IBL_PAGE(va);

    bt_ibl(win)[i] = (u64)(uintptr_t)code;
    p->ibl_kind[i] = global ? 2 : 1;
    if (!global)
        log_slot(&p->log_ibl, i);
    log_slot(&p->log_ibl_all, i);
    p->ibl_pages[bloom / 64] |= BIT64(bloom % 64);
    /* An instruction may reach into the next page. */
    if ((va & (PAGE_SIZE - 1)) > PAGE_SIZE - X86_INSN_MAX) {
        bloom = BT_IBL_PAGE(va + PAGE_SIZE);
        p->ibl_pages[bloom / 64] |= BIT64(bloom % 64);
    }
    p->used_ibl = true;
}
