/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chained jumps to other pages. A jump within a page stays right as long as its block does; one to
 * another page counts on the target's address being mapped where it was. That is known of a
 * kernel's global pages, and only to the vCPU whose TLB has them, so it is done for kernel code in
 * machines with one vCPU. All target pages are kept, and looked at again when the guest has global
 * translations forgotten: a TLB may have fetched them again at once (SDM 3A 4.10.2.3), so what the
 * tables say at that moment is as good as what they say later.
 */
#include "engine/bt/bt_priv.h"
#include "engine/bt/emit.h"

#define PAGES_BITS 13
#define PAGES_MAX (1u << (PAGES_BITS - 1))

#define FAR_MOVED 1u /* no page's address */

struct far_page {
    u64 va;    /* 0: free */
    u64 gpa;   /* FAR_MOVED: no link to it is chained */
    u32 first; /* 1 + index of a link in the list; 0: none */
};

struct far_link {
    struct bt_link *link;
    u32 next;
};

struct bt_far {
    struct far_page page[1u << PAGES_BITS];
    u64 large[BT_LARGE_WORDS]; /* of pages that are pieces of large ones */
    unsigned npages, nlinks, max_links;
    struct far_link link[];
};

int bt_far_init(struct bt_vm *bt)
{
    unsigned n = bt->space[BT_TRANSLATIONS].order_cap;

    bt->far = host_zalloc(sizeof(*bt->far) + n * sizeof(bt->far->link[0]));
    if (!bt->far)
        return -12; /* ENOMEM */
    bt->far->max_links = n;
    return 0;
}

void bt_far_destroy(struct bt_vm *bt)
{
    if (bt->far)
        host_free(bt->far);
}

void bt_far_clear(struct bt_vm *bt)
{
    if (!bt->far->npages)
        return;
    memset(bt->far->page, 0, sizeof(bt->far->page));
    memset(bt->far->large, 0, sizeof(bt->far->large));
    bt->far->npages = bt->far->nlinks = 0;
}

bool bt_far_possible(const struct bt_vm *bt, u64 va, u64 target, u32 mode)
{
    return bt->vm->nvcpus == 1 && (mode & BT_MODE_64) && (mode & BT_MODE_CPL0) && !bt->lockstep &&
           !bt_clonable(va) && !bt_clonable(target);
}

/* The entry of a page, or the free one for it. */
static struct far_page *page_at(struct bt_far *f, u64 va)
{
    u64 i = (va >> PAGE_SHIFT) * 0x9e3779b97f4a7c15u >> (64 - PAGES_BITS);

    while (f->page[i].va && f->page[i].va != va)
        i = (i + 1) & ((1u << PAGES_BITS) - 1);
    return &f->page[i];
}

/* Is p mapped as it says, and global? */
static bool unchanged(struct bt_vcpu *c, const struct far_page *p)
{
    struct x86_walk w;

    if (!bt_tlb_walk(c, p->va, X86_ACC_EXEC | X86_ACC_NO_SET_AD, &w) || !w.global ||
        (w.gpa & PAGE_MASK) != p->gpa)
        return false;
    if (w.page_size > PAGE_SIZE)
        bt_note_large(c->bt->far->large, p->va, w.page_size);
    return true;
}

bool bt_far_chain(struct bt_vcpu *c, struct bt_link *l, const struct bt_block *to)
{
    struct bt_far *f = c->bt->far;
    u64 va = l->target & PAGE_MASK;
    struct far_page *p = page_at(f, va);

    if (to->len2 || c->env->cls == BT_USER)
        return false;
    if (!p->va || p->gpa == FAR_MOVED) {
        struct far_page now = {.va = va, .gpa = to->gpa & PAGE_MASK};

        if ((!p->va && f->npages == PAGES_MAX) || !unchanged(c, &now))
            return false;
        f->npages += !p->va;
        *p = now;
    }
    if (p->gpa != (to->gpa & PAGE_MASK))
        return false;
    if (l->far == BT_FAR) {
        if (f->nlinks == f->max_links)
            return false;
        f->link[f->nlinks] = (struct far_link){l, p->first};
        p->first = ++f->nlinks;
        l->far = BT_FAR_LISTED;
    }
    return true;
}

static void check(struct bt_vcpu *c, struct far_page *p)
{
    struct bt_far *f = c->bt->far;

    if (!p->va || p->gpa == FAR_MOVED || unchanged(c, p))
        return;
    for (u32 i = p->first; i; i = f->link[i - 1].next) {
        struct bt_link *l = f->link[i - 1].link;

        /* The jumps from its own page are chained again soon; work is bounded so. */
        if (l->chained)
            bt_cache_unchain_to(c->bt, bt_cache_target(c->bt, l));
        l->far = BT_FAR;
    }
    /* The entry stays, for those beyond it. */
    p->gpa = FAR_MOVED;
    p->first = 0;
}

void bt_far_check_all(struct bt_vcpu *c)
{
    struct bt_far *f = c->bt->far;

    if (f->npages)
        for (unsigned i = 0; i < 1u << PAGES_BITS; i++)
            check(c, &f->page[i]);
}

void bt_far_check(struct bt_vcpu *c, u64 va)
{
    struct bt_far *f = c->bt->far;

    if (bt_in_large(f->large, va))
        bt_far_check_all(c);
    else if (f->npages)
        check(c, page_at(f, va & PAGE_MASK));
}
