/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The code cache: blocks by address and mode, by host address, and by guest page.
 *
 * Readers (lookup) take no lock: inserting publishes with a release store, and removal happens only
 * while every other vCPU is stopped. Code is allocated upwards and freed only all at once.
 */
#include "engine/bt/bt_priv.h"
#include "engine/bt/emit.h"

/* Bytes of metadata and blocks for each space: about as many as there is room for code. */
#define ARENA_SIZE(code) ((code) + (code) / 2)
#define ORDER_CAP(code) ((code) / 128)

/* --- spaces --------------------------------------------------------------------------------------
 */

static bool space_init(struct bt_space *sp, u8 *code, u8 *code_end)
{
    u64 size = (u64)(code_end - code);

    sp->code = sp->code_pos = sp->code_ready = code;
    sp->code_end = code_end;
    sp->arena = host_zalloc(ARENA_SIZE(size));
    sp->order_cap = (unsigned)ORDER_CAP(size);
    sp->order = host_zalloc(sp->order_cap * sizeof(*sp->order));
    if (!sp->arena || !sp->order)
        return false;
    sp->arena_pos = sp->arena_ready = sp->arena;
    sp->arena_end = sp->arena + ARENA_SIZE(size);
    return true;
}

static void space_destroy(struct bt_space *sp)
{
    if (sp->arena)
        host_free(sp->arena);
    if (sp->order)
        host_free(sp->order);
}

static void space_clear(struct bt_space *sp)
{
    sp->norder = 0;
    sp->arena_pos = sp->arena;
    sp->code_pos = sp->code;
}

/* Populates the piece of memory behind *ready, once `pos` comes near it. */
static u64 next_piece(u8 *pos, u8 **ready, u8 *end, u64 ahead)
{
    u64 n = BT_READY_STEP;

    if (likely(pos + ahead <= *ready) || *ready == end)
        return 0;
    if (n > (u64)(end - *ready))
        n = (u64)(end - *ready);
    *ready += n;
    return n;
}

void *bt_arena_alloc(struct bt_space *sp, size_t size)
{
    u8 *p = sp->arena_pos;
    u64 n;

    /* Records of a cache line and more, blocks, begin with one. */
    if (size >= 64)
        p = (u8 *)(uintptr_t)align_up((u64)(uintptr_t)p, 64);
    size = (size + 15) & ~(size_t)15;
    if (p > sp->arena_end || size > (size_t)(sp->arena_end - p))
        return NULL;
    sp->arena_pos = p + size;
    n = next_piece(sp->arena_pos, &sp->arena_ready, sp->arena_end, 0);
    if (n)
        host_populate(sp->arena_ready - n, n, true);
    return p;
}

bool bt_space_ready(struct bt_vm *bt, struct bt_space *sp)
{
    u64 n;

    if ((size_t)(sp->code_end - sp->code_pos) < 2 * BT_BLOCK_BYTES || sp->norder == sp->order_cap)
        return false;
    n = next_piece(sp->code_pos, &sp->code_ready, sp->code_end, BT_BLOCK_BYTES);
    if (n) {
        u8 *from = (u8 *)(uintptr_t)align_down((u64)(uintptr_t)(sp->code_ready - n), PAGE_SIZE);

        host_populate(from, (u64)(sp->code_ready - from), true);
        host_populate(bt->code.rx + (from - bt->code.rw), (u64)(sp->code_ready - from), false);
    }
    return true;
}

/* --- blocks by address ---------------------------------------------------------------------------
 *
 * Buckets of one cache line, tags that all but identify the key: a look-up touches the line and the
 * block. Readers take no lock. A table that gets full is replaced; readers of the old one miss, at
 * worst, what has come since.
 */

#define BUCKET 4

struct slot {
    u64 tag; /* EMPTY, DELETED or a hash with bit 0 set */
    struct bt_block *b;
};

#define EMPTY 0
#define DELETED 2

struct bt_hash {
    struct bt_hash *older; /* replaced by this one; freed with it */
    unsigned bits;         /* of the bucket number */
    unsigned used;         /* slots that are not EMPTY */
    struct slot slot[];
};

#define FIRST_BITS 12

static struct bt_hash *hash_create(unsigned bits, struct bt_hash *older)
{
    struct bt_hash *h = host_zalloc(sizeof(*h) + (sizeof(struct slot) * BUCKET << bits));

    if (h) {
        h->bits = bits;
        h->older = older;
    }
    return h;
}

static u64 hash_of(u64 va, u64 gpa, u32 mode)
{
    u64 h = va ^ gpa * 0x9e3779b97f4a7c15u ^ (u64)mode << 20;

    h *= 0xbf58476d1ce4e5b9u;
    h ^= h >> 29;
    h *= 0x94d049bb133111ebu;
    return h | 1;
}

/*
 * The slot to begin at. Blocks of one page are neighbours in the table, a bucket for 32 bytes of
 * code: what runs together is looked up together.
 */
static u64 bucket_of(const struct bt_hash *h, u64 va, u64 gpa, u32 mode)
{
    u64 page = hash_of(va & PAGE_MASK, gpa & PAGE_MASK, mode) >> (64 - h->bits);

    return ((page + (va & (PAGE_SIZE - 1)) / 32) & (BIT64(h->bits) - 1)) * BUCKET;
}

static bool hash_put(struct bt_hash *h, struct bt_block *b)
{
    u64 tag = hash_of(b->va, b->gpa & PAGE_MASK, b->mode), n = (u64)BUCKET << h->bits;

    if (h->used > n / 2 + n / 8)
        return false;
    for (u64 i = bucket_of(h, b->va, b->gpa, b->mode);; i = (i + 1) & (n - 1)) {
        struct slot *s = &h->slot[i];

        if (s->tag != EMPTY)
            continue;
        s->b = b;
        __atomic_store_n(&s->tag, tag, __ATOMIC_RELEASE);
        h->used++;
        return true;
    }
}

/* Puts b into the table, a larger one if need be. */
static bool hash_insert(struct bt_vm *bt, struct bt_block *b)
{
    struct bt_hash *h = bt->hash, *larger;
    u64 live = 0;

    if (hash_put(h, b))
        return true;
    for (u64 i = 0; i < (u64)BUCKET << h->bits; i++)
        live += h->slot[i].tag & 1;
    /* What fills it may be deleted slots. */
    larger = hash_create(h->bits + (live > (u64)BUCKET << h->bits >> 2), h);
    if (!larger)
        return false;
    for (u64 i = 0; i < (u64)BUCKET << h->bits; i++)
        if (h->slot[i].tag & 1)
            hash_put(larger, h->slot[i].b);
    hash_put(larger, b);
    __atomic_store_n(&bt->hash, larger, __ATOMIC_RELEASE);
    return true;
}

static void hash_remove(struct bt_hash *h, const struct bt_block *b)
{
    u64 tag = hash_of(b->va, b->gpa & PAGE_MASK, b->mode), n = (u64)BUCKET << h->bits;

    for (u64 i = bucket_of(h, b->va, b->gpa, b->mode); h->slot[i].tag != EMPTY;
         i = (i + 1) & (n - 1))
        if (h->slot[i].tag == tag && h->slot[i].b == b)
            h->slot[i].tag = DELETED;
}

/* All vCPUs are stopped: nobody looks at older tables any more either. */
static void hash_clear(struct bt_hash *h)
{
    while (h->older) {
        struct bt_hash *old = h->older;

        h->older = old->older;
        host_free(old);
    }
    memset(h->slot, 0, sizeof(struct slot) * BUCKET << h->bits);
    h->used = 0;
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
    const struct bt_hash *h = __atomic_load_n(&c->bt->hash, __ATOMIC_ACQUIRE);
    u64 want = hash_of(va, gpa & PAGE_MASK, mode), n = (u64)BUCKET << h->bits;

    for (u64 i = bucket_of(h, va, gpa, mode);; i = (i + 1) & (n - 1)) {
        u64 tag = __atomic_load_n(&h->slot[i].tag, __ATOMIC_ACQUIRE);
        struct bt_block *b;

        if (tag == EMPTY)
            return NULL;
        if (tag != want)
            continue;
        b = h->slot[i].b;
        if (b->va == va && b->gpa == gpa && b->mode == mode && second_page_fits(c, b))
            return b;
    }
}

/* --- the cache -----------------------------------------------------------------------------------
 */

int bt_cache_init(struct bt_vm *bt, u64 size)
{
    int err = host_code_alloc(&bt->code, align_down(size ? size : BT_CODE_SIZE, PAGE_SIZE));
    u8 *clones;

    if (err)
        return err;
    bt_stubs_build(bt);
    bt->clones_off = align_down(bt->code.size - bt->code.size / BT_CLONE_PART, PAGE_SIZE);
    clones = bt->code.rw + bt->clones_off;
    bt->hash = hash_create(FIRST_BITS, NULL);
    bt->by_gpa = host_zalloc(sizeof(*bt->by_gpa) << BT_BY_GPA_BITS);
    if (!bt->hash || !bt->by_gpa ||
        !space_init(&bt->space[BT_TRANSLATIONS], bt->space[BT_TRANSLATIONS].code, clones) ||
        !space_init(&bt->space[BT_CLONES], clones, bt->code.rw + bt->code.size))
        return -12; /* ENOMEM */
    return 0;
}

void bt_cache_destroy(struct bt_vm *bt)
{
    for (unsigned i = 0; i < MEM_SLOTS_MAX; i++)
        if (bt->pages[i])
            host_free(bt->pages[i]);
    for (unsigned i = 0; i < BT_NSPACES; i++)
        space_destroy(&bt->space[i]);
    if (bt->hash) {
        hash_clear(bt->hash);
        host_free(bt->hash);
    }
    if (bt->by_gpa)
        host_free(bt->by_gpa);
    if (bt->code.rw)
        host_code_free(&bt->code);
}

struct bt_block *bt_cache_find_pc(struct bt_vm *bt, u64 pc)
{
    const struct bt_space *sp =
        &bt->space[pc - (u64)(uintptr_t)bt->code.rx < bt->clones_off ? BT_TRANSLATIONS : BT_CLONES];
    unsigned lo = 0, hi = __atomic_load_n(&sp->norder, __ATOMIC_ACQUIRE);

    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;

        if ((u64)(uintptr_t)sp->order[mid]->ibl_entry <= pc)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (!lo)
        return NULL;
    if (pc >= (u64)(uintptr_t)sp->order[lo - 1]->ibl_entry + sp->order[lo - 1]->size)
        return NULL;
    return sp->order[lo - 1];
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
        struct bt_page *page = bt_arena_alloc(&bt->space[BT_TRANSLATIONS], sizeof(*page));

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

static struct bt_block **by_gpa(struct bt_vm *bt, u64 gpa, u32 mode)
{
    return &bt->by_gpa[hash_of(0, gpa, mode) >> (64 - BT_BY_GPA_BITS)];
}

bool bt_cache_insert(struct bt_vm *bt, struct bt_space *sp, struct bt_block *b)
{
    CHECK(sp->norder < sp->order_cap);
    if (!bt_page_of(bt, b->gpa, true) || !hash_insert(bt, b))
        return false;
    add_to_page(bt, b);
    if (b->twin)
        add_to_page(bt, b->twin);
    sp->order[sp->norder] = b;
    __atomic_store_n(&sp->norder, sp->norder + 1, __ATOMIC_RELEASE);
    if (b->reloc && sp == &bt->space[BT_TRANSLATIONS])
        *by_gpa(bt, b->gpa, b->mode) = b;
    return true;
}

struct bt_block *bt_cache_sibling(struct bt_vm *bt, u64 gpa, u32 mode)
{
    struct bt_block *b = *by_gpa(bt, gpa, mode);

    return b && b->gpa == gpa && b->mode == mode && !b->dead ? b : NULL;
}

/* Lets both entries of a block lead out: the direct one to its own stub that knows the address. */
static void kill_block(struct bt_vm *bt, struct bt_block *b)
{
    u8 *entry = bt_rw(bt, b->entry), *ibl = bt_rw(bt, b->ibl_entry);

    if (b->dead)
        return;
    hash_remove(bt->hash, b);
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
    for (unsigned n = 0; n < BT_NSPACES; n++)
        for (unsigned i = 0; i < bt->space[n].norder; i++) {
            struct bt_block *b = bt->space[n].order[i];

            if (va - b->va < (u64)b->guest_len + b->len2)
                kill_block(bt, b);
        }
    bt->epoch++;
}

static void forget(struct bt_vm *bt)
{
    hash_clear(bt->hash);
    memset(bt->by_gpa, 0, sizeof(*bt->by_gpa) << BT_BY_GPA_BITS);
    bt->epoch++;
    for (unsigned i = 0; i < bt->nvcpus; i++)
        bt_ibl_clear_all(bt->vcpu[i]);
}

void bt_cache_flush(struct bt_vm *bt)
{
    for (unsigned i = 0; i < MEM_SLOTS_MAX; i++)
        if (bt->pages[i])
            memset(bt->pages[i], 0,
                   (bt->vm->mem.slot[i].size >> PAGE_SHIFT) * sizeof(struct bt_page *));
    for (unsigned i = 0; i < BT_NSPACES; i++)
        space_clear(&bt->space[i]);
    forget(bt);
}

/* Takes every chained jump of b, and those to b, back to the stubs. */
static void unchain(struct bt_vm *bt, struct bt_block *b)
{
    u8 *entry = bt_rw(bt, b->entry);

    b->in_links = NULL;
    for (unsigned i = 0; i < BT_NLINKS; i++)
        if (b->link[i].chained) {
            emit_patch32(entry + b->link[i].jmp, entry + b->link[i].stub);
            b->link[i].chained = false;
        }
}

/* The lists of all pages are emptied and filled again with what is left. */
void bt_cache_flush_clones(struct bt_vm *bt)
{
    struct bt_space *sp = &bt->space[BT_TRANSLATIONS];

    for (unsigned i = 0; i < sp->norder; i++) {
        struct bt_block *b = sp->order[i];
        struct bt_page *page = bt_page_of(bt, b->gpa, false);

        page->blocks = NULL;
        page->lines = 0;
        if (b->twin && (page = bt_page_of(bt, b->twin->gpa, false))) {
            page->blocks = NULL;
            page->lines = 0;
        }
        if (!b->dead)
            unchain(bt, b);
    }
    space_clear(&bt->space[BT_CLONES]);
    forget(bt);
    for (unsigned i = 0; i < sp->norder; i++) {
        struct bt_block *b = sp->order[i];

        if (b->dead)
            continue;
        CHECK(hash_put(bt->hash, b)); /* it held them all before */
        add_to_page(bt, b);
        if (b->twin)
            add_to_page(bt, b->twin);
        if (b->reloc)
            *by_gpa(bt, b->gpa, b->mode) = b;
    }
}
