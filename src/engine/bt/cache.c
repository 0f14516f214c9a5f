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

/* --- places --- */

#define BLOCK_UNIT 16 /* bt_arena_alloc */
#define CODE_UNIT 16  /* blocks begin at multiples of it (gen_block) */

static struct bt_place place_of(const struct bt_vm *bt, const struct bt_block *b)
{
    return (struct bt_place){
        .block = (u32)((u64)((const u8 *)b - bt->meta) / BLOCK_UNIT),
        .code = (u32)((u64)(bt_ibl_entry(b) - bt->code.rx) / CODE_UNIT),
    };
}

static struct bt_block *block_at(const struct bt_vm *bt, struct bt_place p)
{
    return (struct bt_block *)(void *)(bt->meta + (u64)p.block * BLOCK_UNIT);
}

static struct bt_block *ordered(const struct bt_vm *bt, const struct bt_space *sp, unsigned i)
{
    return block_at(bt, sp->order[i]);
}

/* --- spaces --------------------------------------------------------------------------------------
 */

static bool space_init(struct bt_space *sp, u8 *code, u8 *code_end, u8 *arena)
{
    u64 size = (u64)(code_end - code);

    sp->code = sp->code_pos = code;
    /* The first translations come before there is a thread for it. */
    sp->code_ready = (u8 *)(uintptr_t)align_down((u64)(uintptr_t)code, PAGE_SIZE);
    sp->code_end = code_end;
    sp->arena = arena;
    sp->order_cap = (unsigned)ORDER_CAP(size);
    sp->order = host_zalloc(sp->order_cap * sizeof(*sp->order));
    if (!sp->order)
        return false;
    sp->arena_pos = sp->arena_ready = sp->arena;
    sp->arena_end = sp->arena + align_down(ARENA_SIZE(size), PAGE_SIZE);
    return true;
}

static void space_clear(struct bt_space *sp)
{
    sp->norder = 0;
    sp->arena_pos = sp->arena;
    sp->code_pos = sp->code;
}

/*
 * Memory is populated in pieces: the one after the piece in use by another thread. `pos` comes to
 * need memory up to pos + ahead.
 */
static u64 next_piece(u8 *pos, u8 **ready, u8 *end, u64 ahead)
{
    u64 n = BT_READY_STEP;

    if (likely(pos + ahead + BT_READY_STEP <= *ready) || *ready == end)
        return 0;
    if (n > (u64)(end - *ready))
        n = (u64)(end - *ready);
    *ready += n;
    return n;
}

static void ready(u8 *p, u64 n, bool write)
{
    if (!host_populate_later(p, n, write))
        host_populate(p, n, write);
}

void *bt_arena_alloc(struct bt_space *sp, size_t size)
{
    u8 *p = sp->arena_pos;
    u64 n;

    size = (size + BLOCK_UNIT - 1) & ~(size_t)(BLOCK_UNIT - 1);
    if (size > (size_t)(sp->arena_end - p))
        return NULL;
    sp->arena_pos = p + size;
    n = next_piece(sp->arena_pos, &sp->arena_ready, sp->arena_end, 0);
    if (n)
        ready(sp->arena_ready - n, n, true);
    return p;
}

bool bt_space_ready(struct bt_vm *bt, struct bt_space *sp)
{
    u64 n;

    if ((size_t)(sp->code_end - sp->code_pos) < 2 * BT_BLOCK_BYTES || sp->norder == sp->order_cap)
        return false;
    n = next_piece(sp->code_pos, &sp->code_ready, sp->code_end, BT_BLOCK_BYTES);
    if (n) {
        u8 *from = sp->code_ready - n;

        ready(from, n, true);
        ready(bt->code.rx + (from - bt->code.rw), n, false);
    }
    return true;
}

/* --- blocks by address ---------------------------------------------------------------------------
 *
 * Buckets of one cache line. A look-up touches that line only, and not the block: a tag is a hash
 * of the whole key, by a secret multiplier, so that two keys have the same by an accident of 2^-62
 * only, whatever the guest does. Readers take no lock. A table that gets full is replaced; readers
 * of the old one miss, at worst, what has come since.
 */

#define BUCKET 4

struct slot {
    u64 tag; /* EMPTY, DELETED or a hash with bit 0 set */
    struct bt_place place;
};

#define EMPTY 0
#define DELETED 2
#define STRADDLES 2u /* in a tag: the block goes on in a second page */
#define TAG_KEY (~(u64)STRADDLES)

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

/* mode fits below the page's address. */
static u64 hash_of(const struct bt_vm *bt, u64 va, u64 gpa, u32 mode)
{
    unsigned __int128 m =
        (unsigned __int128)(va ^ bt->secret[0]) * (((gpa & PAGE_MASK) | mode) ^ bt->secret[1]);

    return (u64)m ^ (u64)(m >> 64);
}

static u64 tag_of(const struct bt_vm *bt, u64 va, u64 gpa, u32 mode)
{
    return (hash_of(bt, va, gpa, mode) & TAG_KEY) | 1;
}

/*
 * The slot to begin at. Blocks of one page are neighbours in the table, a bucket for 32 bytes of
 * code: what runs together is looked up together.
 */
static u64 bucket_of(const struct bt_vm *bt, const struct bt_hash *h, u64 va, u64 gpa, u32 mode)
{
    u64 page = hash_of(bt, va & PAGE_MASK, gpa, mode) >> (64 - h->bits);

    return ((page + (va & (PAGE_SIZE - 1)) / 32) & (BIT64(h->bits) - 1)) * BUCKET;
}

static bool hash_put(struct bt_vm *bt, struct bt_hash *h, struct bt_block *b)
{
    u64 tag = tag_of(bt, b->va, b->gpa, b->mode), n = (u64)BUCKET << h->bits;

    if (h->used > n / 2 + n / 8)
        return false;
    for (u64 i = bucket_of(bt, h, b->va, b->gpa, b->mode);; i = (i + 1) & (n - 1)) {
        struct slot *s = &h->slot[i];

        if (s->tag & 1)
            continue;
        h->used += s->tag == EMPTY;
        s->place = place_of(bt, b);
        __atomic_store_n(&s->tag, tag | (b->len2 ? STRADDLES : 0), __ATOMIC_RELEASE);
        return true;
    }
}

/* Puts b into the table, a larger one if need be. */
static bool hash_insert(struct bt_vm *bt, struct bt_block *b)
{
    struct bt_hash *h = bt->hash, *larger;
    u64 live = 0;

    if (hash_put(bt, h, b))
        return true;
    for (u64 i = 0; i < (u64)BUCKET << h->bits; i++)
        live += h->slot[i].tag & 1;
    /* What fills it may be deleted slots. */
    larger = hash_create(h->bits + (live > (u64)BUCKET << h->bits >> 2), h);
    if (!larger)
        return false;
    for (u64 i = 0; i < (u64)BUCKET << h->bits; i++)
        if (h->slot[i].tag & 1)
            hash_put(bt, larger, block_at(bt, h->slot[i].place));
    hash_put(bt, larger, b);
    __atomic_store_n(&bt->hash, larger, __ATOMIC_RELEASE);
    return true;
}

static void hash_remove(struct bt_vm *bt, const struct bt_block *b)
{
    struct bt_hash *h = bt->hash;
    u64 tag = tag_of(bt, b->va, b->gpa, b->mode), n = (u64)BUCKET << h->bits;

    for (u64 i = bucket_of(bt, h, b->va, b->gpa, b->mode); h->slot[i].tag != EMPTY;
         i = (i + 1) & (n - 1))
        if ((h->slot[i].tag & TAG_KEY) == tag && block_at(bt, h->slot[i].place) == b)
            h->slot[i].tag = DELETED;
}

/* All vCPUs are stopped: nobody looks at older tables any more. */
static void hash_forget_older(struct bt_hash *h)
{
    while (h->older) {
        struct bt_hash *old = h->older;

        h->older = old->older;
        host_free(old);
    }
}

static void hash_clear(struct bt_hash *h)
{
    hash_forget_older(h);
    memset(h->slot, 0, sizeof(struct slot) * BUCKET << h->bits);
    h->used = 0;
}

static bool second_page_fits(struct bt_vcpu *c, const struct bt_block *b)
{
    u64 gpa;
    u8 *host;

    return bt_fetch(c, (b->va & PAGE_MASK) + PAGE_SIZE, &gpa, &host) && gpa == b->twin->gpa;
}

static const struct slot *find(struct bt_vcpu *c, u64 va, u64 gpa, u32 mode)
{
    const struct bt_hash *h = __atomic_load_n(&c->bt->hash, __ATOMIC_ACQUIRE);
    u64 want = tag_of(c->bt, va, gpa, mode), n = (u64)BUCKET << h->bits;

    for (u64 i = bucket_of(c->bt, h, va, gpa, mode);; i = (i + 1) & (n - 1)) {
        const struct slot *s = &h->slot[i];
        u64 tag = __atomic_load_n(&s->tag, __ATOMIC_ACQUIRE);

        if (tag == EMPTY)
            return NULL;
        if ((tag & TAG_KEY) == want &&
            (!(tag & STRADDLES) || second_page_fits(c, block_at(c->bt, s->place))))
            return s;
    }
}

struct bt_block *bt_cache_peek(struct bt_vm *bt, u64 va, u64 gpa, u32 mode)
{
    const struct bt_hash *h = bt->hash;
    u64 want = tag_of(bt, va, gpa, mode), n = (u64)BUCKET << h->bits;

    for (u64 i = bucket_of(bt, h, va, gpa, mode); h->slot[i].tag != EMPTY; i = (i + 1) & (n - 1))
        if (h->slot[i].tag == want)
            return block_at(bt, h->slot[i].place);
    return NULL;
}

struct bt_block *bt_cache_target(struct bt_vm *bt, const struct bt_link *l)
{
    return block_at(bt, (struct bt_place){.block = l->to});
}

struct bt_block *bt_cache_lookup(struct bt_vcpu *c, u64 va, u64 gpa, u32 mode)
{
    const struct slot *s = find(c, va, gpa, mode);

    return s ? block_at(c->bt, s->place) : NULL;
}

const u8 *bt_cache_lookup_code(struct bt_vcpu *c, u64 va, u64 gpa, u32 mode)
{
    const struct slot *s = find(c, va, gpa, mode);

    return s ? c->bt->code.rx + (u64)s->place.code * CODE_UNIT : NULL;
}

/* --- the cache -----------------------------------------------------------------------------------
 */

int bt_cache_init(struct bt_vm *bt, u64 size)
{
    int err = host_code_alloc(&bt->code, align_down(size ? size : BT_CODE_SIZE, PAGE_SIZE));
    u8 *clones, *clones_meta;

    if (err)
        return err;
    err = host_random(bt->secret, sizeof(bt->secret));
    if (err)
        return err;
    bt_stubs_build(bt);
    bt->clones_off = align_down(bt->code.size - bt->code.size / BT_CLONE_PART, PAGE_SIZE);
    clones = bt->code.rw + bt->clones_off;
    bt->hash = hash_create(FIRST_BITS, NULL);
    bt->by_gpa = host_zalloc(sizeof(*bt->by_gpa) << BT_BY_GPA_BITS);
    bt->meta = host_zalloc(ARENA_SIZE(bt->code.size));
    if (!bt->hash || !bt->by_gpa || !bt->meta)
        return -12; /* ENOMEM */
    clones_meta = bt->meta + align_down(ARENA_SIZE(bt->clones_off), PAGE_SIZE);
    if (!space_init(&bt->space[BT_TRANSLATIONS], bt->space[BT_TRANSLATIONS].code, clones,
                    bt->meta) ||
        !space_init(&bt->space[BT_CLONES], clones, bt->code.rw + bt->code.size, clones_meta))
        return -12;
    bt->mixed = host_zalloc(bt->space[BT_TRANSLATIONS].order_cap * sizeof(*bt->mixed));
    return bt->mixed ? bt_far_init(bt) : -12;
}

void bt_cache_destroy(struct bt_vm *bt)
{
    for (unsigned i = 0; i < MEM_SLOTS_MAX; i++) {
        if (bt->pages[i])
            host_free(bt->pages[i]);
        if (bt->wrote[i])
            host_free(bt->wrote[i]);
    }
    for (unsigned i = 0; i < BT_NSPACES; i++)
        if (bt->space[i].order)
            host_free(bt->space[i].order);
    if (bt->mixed)
        host_free(bt->mixed);
    bt_far_destroy(bt);
    if (bt->meta)
        host_free(bt->meta);
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
    u64 at = (pc - (u64)(uintptr_t)bt->code.rx) / CODE_UNIT;
    struct bt_block *b;

    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;

        if (sp->order[mid].code <= at)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (!lo)
        return NULL;
    b = ordered(bt, sp, lo - 1);
    return pc < (u64)(uintptr_t)bt_ibl_entry(b) + b->size ? b : NULL;
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
        memset(page, 0, sizeof(*page));
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

static bool is_clone(const struct bt_vm *bt, const void *record)
{
    return (const u8 *)record >= bt->space[BT_CLONES].arena;
}

static void add_to_page(struct bt_vm *bt, struct bt_block *b)
{
    struct bt_page *page = bt_page_of(bt, b->gpa, true);
    struct bt_block **list;

    CHECK(page);
    list = is_clone(bt, b) ? &page->clones : &page->blocks;
    b->page_next = *list;
    *list = b;
    __atomic_store_n(&page->lines, page->lines | block_lines(b), __ATOMIC_SEQ_CST);
}

static struct bt_block **by_gpa(struct bt_vm *bt, u64 gpa, u32 mode)
{
    return &bt->by_gpa[hash_of(bt, gpa & (PAGE_SIZE - 1), gpa, mode) >> (64 - BT_BY_GPA_BITS)];
}

bool bt_cache_insert(struct bt_vm *bt, struct bt_space *sp, struct bt_block *b)
{
    CHECK(sp->norder < sp->order_cap);
    if (!bt_page_of(bt, b->gpa, true))
        return false;
    /* Once it is in the hash another vCPU may run it, and look for it by its code. */
    sp->order[sp->norder] = place_of(bt, b);
    __atomic_store_n(&sp->norder, sp->norder + 1, __ATOMIC_RELEASE);
    if (!hash_insert(bt, b)) {
        __atomic_store_n(&sp->norder, sp->norder - 1, __ATOMIC_RELEASE);
        return false;
    }
    add_to_page(bt, b);
    if (b->twin)
        add_to_page(bt, b->twin);
    if (b->reloc && sp == &bt->space[BT_TRANSLATIONS])
        *by_gpa(bt, b->gpa, b->mode) = b;
    return true;
}

struct bt_block *bt_cache_sibling(struct bt_vm *bt, u64 gpa, u32 mode)
{
    struct bt_block *b = *by_gpa(bt, gpa, mode);

    return b && b->gpa == gpa && b->mode == mode && !b->dead ? b : NULL;
}

void bt_cache_chain(struct bt_vm *bt, struct bt_link *l, struct bt_block *to)
{
    u8 *at = bt_rw(bt, bt_link_block(l)->entry) + l->jmp;
    s32 rel = (s32)(bt_rw(bt, to->entry) + (to->len2 ? to->via_ibl : 0) - (at + 4));

    if (((u64)(uintptr_t)at & 3) == 0)
        __atomic_store_n((s32 *)(void *)at, rel, __ATOMIC_RELEASE);
    else
        memcpy(at, &rel, 4);
    l->next_in = to->in_links;
    to->in_links = l;
    l->to = place_of(bt, to).block;
    l->chained = true;
    if (is_clone(bt, l) && !is_clone(bt, to) && !to->mixed) {
        to->mixed = true;
        bt->mixed[bt->nmixed++] = place_of(bt, to);
    }
}

/* Takes a jump back to its stub. */
static void unchain(struct bt_vm *bt, struct bt_link *l)
{
    u8 *entry = bt_rw(bt, bt_link_block(l)->entry);

    emit_patch32(entry + l->jmp, entry + l->stub);
    l->chained = false;
}

void bt_cache_unchain_to(struct bt_vm *bt, struct bt_block *b)
{
    for (struct bt_link *l = b->in_links; l; l = l->next_in)
        unchain(bt, l);
    b->in_links = NULL;
}

/* Lets both entries of a block lead out: the direct one to its own stub that knows the address. */
static void kill_block(struct bt_vm *bt, struct bt_block *b)
{
    u8 *entry = bt_rw(bt, b->entry), *ibl = bt_rw(bt, bt_ibl_entry(b));

    if (b->dead)
        return;
    hash_remove(bt, b);
    bt_cache_unchain_to(bt, b);
    entry[0] = 0xe9;
    emit_patch32(entry + 1, entry + b->stale);
    ibl[0] = 0xe9;
    emit_patch32(ibl + 1, bt_rw(bt, bt->exit_ibl));
    b->dead = true;
}

/* Blocks of a list that overlap [gpa, gpa+n). Returns the lines of those that do not. */
static u64 invalidate_list(struct bt_vm *bt, struct bt_stats *st, struct bt_block **p, u64 gpa,
                           u64 n)
{
    struct bt_block *b;
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
    return lines;
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
            page->lines = invalidate_list(bt, st, &page->blocks, gpa, n) |
                          invalidate_list(bt, st, &page->clones, gpa, n);
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
            struct bt_block *b = ordered(bt, &bt->space[n], i);

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
    for (unsigned i = 0; i < BT_NSPACES; i++)
        space_clear(&bt->space[i]);
    hash_clear(bt->hash);
    memset(bt->by_gpa, 0, sizeof(*bt->by_gpa) << BT_BY_GPA_BITS);
    bt->nmixed = 0;
    bt_far_clear(bt);
    bt->epoch++;
    for (unsigned i = 0; i < bt->nvcpus; i++)
        bt_ibl_clear_all(bt->vcpu[i]);
}

static void forget_clone(struct bt_vm *bt, struct bt_block *b)
{
    struct bt_page *page = bt_page_of(bt, b->gpa, false);

    page->clones = NULL;
    for (struct bt_link *l = b->in_links; l; l = l->next_in)
        if (!is_clone(bt, l))
            unchain(bt, l);
    if (!b->dead)
        hash_remove(bt, b);
}

/* Takes the clones' jumps out of a translation's list. */
static void unmix(struct bt_vm *bt, struct bt_block *b)
{
    struct bt_link **p = &b->in_links;

    while (*p)
        if (is_clone(bt, *p))
            *p = (*p)->next_in;
        else
            p = &(*p)->next_in;
    b->mixed = false;
}

/* A page's lines stay what they are: a clone's are its translation's. */
void bt_cache_flush_clones(struct bt_vm *bt)
{
    struct bt_space *sp = &bt->space[BT_CLONES];

    for (unsigned i = 0; i < sp->norder; i++)
        forget_clone(bt, ordered(bt, sp, i));
    for (unsigned i = 0; i < bt->nmixed; i++)
        unmix(bt, block_at(bt, bt->mixed[i]));
    space_clear(sp);
    bt->nmixed = 0;
    bt->epoch++;
    /* Every class: code of CPL 1 and 2 runs in the kernel's windows. */
    for (unsigned i = 0; i < bt->nvcpus; i++)
        bt_ibl_clear_all(bt->vcpu[i]);
    hash_forget_older(bt->hash);
}
