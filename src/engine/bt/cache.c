/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The code cache: blocks by address and mode, by host address, and by guest page.
 *
 * Readers (lookup) take no lock: inserting publishes with a release store, and removal happens only
 * while every other vCPU is stopped. Code is allocated upwards and freed only all at once.
 */
#include "engine/bt/bt_priv.h"
#include "engine/bt/emit.h"

#define ARENA_SIZE (24u << 20)
#define ORDER_CAP (1u << 18)

int bt_cache_init(struct bt_vm *bt)
{
    int err = host_code_alloc(&bt->code, BT_CODE_SIZE);

    if (err)
        return err;
    bt->code_end = bt->code.rw + bt->code.size;
    bt_stubs_build(bt);
    bt->hash = host_zalloc(sizeof(*bt->hash) << BT_HASH_BITS);
    bt->order = host_zalloc(sizeof(*bt->order) * ORDER_CAP);
    bt->order_cap = ORDER_CAP;
    bt->arena = host_zalloc(ARENA_SIZE);
    if (!bt->hash || !bt->order || !bt->arena)
        return -12; /* ENOMEM */
    bt->arena_pos = bt->arena;
    bt->arena_end = bt->arena + ARENA_SIZE;
    return 0;
}

void bt_cache_destroy(struct bt_vm *bt)
{
    for (unsigned i = 0; i < MEM_SLOTS_MAX; i++)
        if (bt->pages[i])
            host_free(bt->pages[i]);
    if (bt->arena)
        host_free(bt->arena);
    if (bt->order)
        host_free(bt->order);
    if (bt->hash)
        host_free(bt->hash);
    if (bt->code.rw)
        host_code_free(&bt->code);
}

void *bt_arena_alloc(struct bt_vm *bt, size_t size)
{
    u8 *p = bt->arena_pos;

    size = (size + 15) & ~(size_t)15;
    if (size > (size_t)(bt->arena_end - p))
        return NULL;
    bt->arena_pos = p + size;
    return p;
}

static unsigned hash_of(u64 va, u64 page, u32 mode)
{
    u64 h = va ^ page * 0x9e3779b97f4a7c15u ^ (u64)mode << 20;

    h *= 0x9e3779b97f4a7c15u;
    return (unsigned)(h >> (64 - BT_HASH_BITS));
}

static bool second_page_fits(struct bt_vcpu *c, const struct bt_block *b)
{
    u64 gpa;
    u8 *host;

    return !b->len2 ||
           (bt_fetch(c, (b->va & PAGE_MASK) + PAGE_SIZE, &gpa, &host) && gpa == b->gpa2);
}

struct bt_block *bt_cache_lookup(struct bt_vcpu *c, u64 va, u64 gpa, u32 mode)
{
    struct bt_vm *bt = c->bt;
    struct bt_block *b =
        __atomic_load_n(&bt->hash[hash_of(va, gpa & PAGE_MASK, mode)], __ATOMIC_ACQUIRE);

    for (; b; b = b->hash_next)
        if (b->va == va && b->gpa == gpa && b->mode == mode && second_page_fits(c, b))
            return b;
    return NULL;
}

struct bt_block *bt_cache_find_pc(struct bt_vm *bt, u64 pc)
{
    unsigned lo = 0, hi = __atomic_load_n(&bt->norder, __ATOMIC_ACQUIRE);

    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;

        if ((u64)(uintptr_t)bt->order[mid]->ibl_entry <= pc)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (!lo)
        return NULL;
    if (pc >= (u64)(uintptr_t)bt->order[lo - 1]->ibl_entry + bt->order[lo - 1]->size)
        return NULL;
    return bt->order[lo - 1];
}

static u64 line_mask(u64 gpa, u64 len)
{
    unsigned first = (unsigned)(gpa & (PAGE_SIZE - 1)) / 64;
    unsigned last = (unsigned)((gpa + len - 1) & (PAGE_SIZE - 1)) / 64;

    return MASK64(last, first);
}

struct bt_page *bt_page_of(struct bt_vm *bt, u64 gpa, bool create)
{
    const struct mem_slot *s = guest_mem_slot(&bt->vm->mem, (gpa_t){gpa});
    struct bt_page **p;
    size_t slot;

    if (!s)
        return NULL;
    slot = (size_t)(s - bt->vm->mem.slot);
    if (!bt->pages[slot])
        return NULL;
    p = &bt->pages[slot][(gpa - s->gpa) >> PAGE_SHIFT];
    if (!*p && create) {
        struct bt_page *page = bt_arena_alloc(bt, sizeof(*page));

        if (!page)
            return NULL;
        page->blocks = NULL;
        page->lines = 0;
        page->translating = 0;
        __atomic_store_n(p, page, __ATOMIC_RELEASE);
    }
    return *p;
}

/* Lines of a page whose change matters to a block. */
static u64 block_lines(const struct bt_block *b)
{
    u64 lines = line_mask(b->gpa, b->guest_len);

    for (unsigned i = 0; i < ARRAY_SIZE(b->seen); i++)
        if (b->seen[i].len)
            lines |= line_mask(b->seen[i].off, b->seen[i].len);
    return lines;
}

/* Does it matter to a block that [gpa, gpa+n) of its page changes? */
static bool concerns(const struct bt_block *b, u64 gpa, u64 n)
{
    u64 off = gpa & (PAGE_SIZE - 1);

    if (b->gpa < gpa + n && gpa < b->gpa + b->guest_len)
        return true;
    for (unsigned i = 0; i < ARRAY_SIZE(b->seen); i++)
        if (b->seen[i].len && b->seen[i].off < off + n &&
            off < (u64)b->seen[i].off + b->seen[i].len)
            return true;
    return false;
}

bool bt_code_overlaps(struct bt_vm *bt, u64 gpa, u64 len)
{
    struct bt_page *page = bt_page_of(bt, gpa, false);

    return page && (page->lines & line_mask(gpa, len));
}

bool bt_code_may_overlap(struct bt_vm *bt, u64 gpa, u64 len)
{
    struct bt_page *page = bt_page_of(bt, gpa, false);

    return page && (__atomic_load_n(&page->translating, __ATOMIC_SEQ_CST) ||
                    (__atomic_load_n(&page->lines, __ATOMIC_SEQ_CST) & line_mask(gpa, len)));
}

static void add_to_page(struct bt_vm *bt, struct bt_block *b)
{
    struct bt_page *page = bt_page_of(bt, b->gpa, true);

    CHECK(page);
    b->page_next = page->blocks;
    page->blocks = b;
    __atomic_store_n(&page->lines, page->lines | block_lines(b), __ATOMIC_SEQ_CST);
}

void bt_cache_insert(struct bt_vm *bt, struct bt_block *b)
{
    struct bt_block **head = &bt->hash[hash_of(b->va, b->gpa & PAGE_MASK, b->mode)];

    CHECK(bt->norder < bt->order_cap);
    add_to_page(bt, b);
    if (b->twin)
        add_to_page(bt, b->twin);
    bt->order[bt->norder] = b;
    __atomic_store_n(&bt->norder, bt->norder + 1, __ATOMIC_RELEASE);
    b->hash_next = *head;
    __atomic_store_n(head, b, __ATOMIC_RELEASE);
}

/* Lets both entries of a block lead out: the direct one to its own stub that knows the address. */
static void kill_block(struct bt_vm *bt, struct bt_block *b)
{
    struct bt_block **p = &bt->hash[hash_of(b->va, b->gpa & PAGE_MASK, b->mode)];
    u8 *entry = bt_rw(bt, b->entry), *ibl = bt_rw(bt, b->ibl_entry);

    if (b->dead)
        return;

    while (*p && *p != b)
        p = &(*p)->hash_next;
    if (*p)
        *p = b->hash_next;
    for (struct bt_link *l = b->in_links; l; l = l->next_in) {
        u8 *from = bt_rw(bt, l->block->entry);

        emit_patch32(from + l->jmp, from + l->stub);
        l->chained = false;
    }
    b->in_links = NULL;
    entry[0] = 0xe9;
    emit_patch32(entry + 1, entry + b->stale);
    ibl[0] = 0xe9;
    emit_patch32(ibl + 1, bt_rw(bt, bt->exit_ibl));
    b->dead = true;
}

void bt_cache_invalidate(struct bt_vm *bt, struct bt_stats *st, u64 gpa, u64 len)
{
    while (len) {
        u64 n = PAGE_SIZE - (gpa & (PAGE_SIZE - 1));
        struct bt_page *page;

        if (n > len)
            n = len;
        page = bt_page_of(bt, gpa, false);
        if (page && (page->lines & line_mask(gpa, n))) {
            struct bt_block **p = &page->blocks, *b;
            u64 lines = 0;

            while ((b = *p)) {
                if (concerns(b, gpa, n)) {
                    kill_block(bt, b->len2 || !b->twin ? b : b->twin);
                    *p = b->page_next;
                    if (st)
                        st->invalidated++;
                } else {
                    lines |= block_lines(b);
                    p = &b->page_next;
                }
            }
            page->lines = lines;
            bt->epoch++;
        }
        gpa += n;
        len -= n;
    }
}

void bt_cache_invalidate_va(struct bt_vm *bt, u64 va)
{
    for (unsigned i = 0; i < bt->norder; i++) {
        struct bt_block *b = bt->order[i];

        if (va - b->va < (u64)b->guest_len + b->len2)
            kill_block(bt, b);
    }
    bt->epoch++;
}

void bt_cache_flush(struct bt_vm *bt)
{
    for (unsigned i = 0; i < MEM_SLOTS_MAX; i++)
        if (bt->pages[i])
            memset(bt->pages[i], 0,
                   (bt->vm->mem.slot[i].size >> PAGE_SHIFT) * sizeof(struct bt_page *));
    memset(bt->hash, 0, sizeof(*bt->hash) << BT_HASH_BITS);
    bt->norder = 0;
    bt->arena_pos = bt->arena;
    bt->code_pos = bt_rw(bt, bt->stubs_end);
    bt->epoch++;
    for (unsigned i = 0; i < bt->nvcpus; i++)
        bt_ibl_clear_all(bt->vcpu[i]);
}
