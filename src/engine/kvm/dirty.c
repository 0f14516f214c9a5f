/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages of RAM were written: KVM's log (api.rst, KVM_GET_DIRTY_LOG), and what this process
 * wrote itself, of which KVM knows nothing.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kvm/kvm_priv.h"

static u64 words(const struct mem_slot *s)
{
    return (s->size / PAGE_SIZE + 63) / 64;
}

void kvm_dirty_free(struct kvm_machine *m)
{
    for (unsigned i = 0; i < MEM_SLOTS_MAX; i++) {
        free(m->dirty[i]);
        m->dirty[i] = NULL;
    }
}

void kvm_dirty_mark(struct kvm_machine *m, u64 a, u64 len)
{
    const struct guest_mem *mem = &m->vm->mem;

    for (unsigned i = 0; i < mem->n; i++) {
        const struct mem_slot *s = &mem->slot[i];
        u64 first = a > s->gpa ? a - s->gpa : 0, last;

        if (!m->dirty[i] || !len || a + len - 1 < s->gpa || first >= s->size)
            continue;
        last = a + len - 1 - s->gpa;
        last = (last < s->size ? last : s->size - 1) / PAGE_SIZE;
        for (u64 page = first / PAGE_SIZE; page <= last; page++)
            __atomic_fetch_or(&m->dirty[i][page / 64], BIT64(page % 64), __ATOMIC_RELAXED);
    }
}

int kvm_dirty_log(struct vm *vm, bool on)
{
    struct kvm_machine *m = vm->engine_vm;
    int err = 0;

    kvm_dirty_free(m);
    for (unsigned i = 0; i < vm->mem.n && !err; i++) {
        const struct mem_slot *s = &vm->mem.slot[i];

        if (s->readonly)
            continue;
        if (on) {
            m->dirty[i] = calloc(words(s), sizeof(u64));
            err = m->dirty[i] ? 0 : -ENOMEM;
        }
        if (!err)
            err = kvm_put_slot(m, i, on ? KVM_MEM_LOG_DIRTY_PAGES : 0);
    }
    if (err)
        kvm_dirty_free(m);
    return err;
}

int kvm_dirty_collect(struct vm *vm, unsigned slot, u64 *bitmap)
{
    struct kvm_machine *m = vm->engine_vm;
    struct kvm_dirty_log log = {.slot = slot, .dirty_bitmap = bitmap};
    int err;

    if (slot >= vm->mem.n || !m->dirty[slot])
        return -EINVAL;
    err = kvm_ioctl(m->fd, KVM_GET_DIRTY_LOG, &log);
    for (u64 i = 0; i < words(&vm->mem.slot[slot]) && !err; i++)
        bitmap[i] |= __atomic_exchange_n(&m->dirty[slot][i], 0, __ATOMIC_RELAXED);
    return err;
}
