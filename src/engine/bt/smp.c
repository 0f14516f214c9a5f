/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stopping all vCPUs. A vCPU is "in guest" while it may touch guest memory, blocks or soft TLBs; it
 * is out while it waits, or is in core or a device. A thread that must change what others rely on
 * without locks (code, tracked pages) raises `excl`, kicks everyone who is in, and waits until all
 * are out.
 */
#include "engine/bt/bt_priv.h"

void bt_kick(struct bt_vcpu *c)
{
    if (__atomic_exchange_n(&c->env->pending, 1, __ATOMIC_SEQ_CST))
        return;
    /* Outside it is enough: on the way in everybody looks at `pending` after setting in_guest.
     * That is the case of every vCPU that interrupts itself from a device's register. */
    if (__atomic_load_n(&c->in_guest, __ATOMIC_SEQ_CST))
        host_kick(c->thread);
}

void bt_enter_guest(struct bt_vcpu *c)
{
    for (;;) {
        __atomic_store_n(&c->in_guest, 1, __ATOMIC_SEQ_CST);
        if (!__atomic_load_n(&c->bt->excl, __ATOMIC_SEQ_CST) || c->excl_depth)
            return;
        __atomic_store_n(&c->in_guest, 0, __ATOMIC_SEQ_CST);
        host_event_wait(&c->excl_event, 1000000);
    }
}

void bt_leave_guest(struct bt_vcpu *c)
{
    __atomic_store_n(&c->in_guest, 0, __ATOMIC_SEQ_CST);
}

void bt_exclusive_begin(struct bt_vm *bt, struct bt_vcpu *self)
{
    if (self && (bt->nvcpus == 1 || self->excl_depth++))
        return;
    if (self)
        bt_leave_guest(self);
    host_mutex_lock(&bt->excl_lock);
    __atomic_store_n(&bt->excl, 1, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < bt->nvcpus; i++) {
        struct bt_vcpu *c = bt->vcpu[i];

        if (c == self)
            continue;
        if (__atomic_load_n(&c->in_guest, __ATOMIC_SEQ_CST))
            bt_kick(c);
        for (unsigned spin = 0; __atomic_load_n(&c->in_guest, __ATOMIC_SEQ_CST); spin++) {
            if (spin < 200)
                __asm__ volatile("pause");
            else
                host_yield();
            /* Should a kick ever get lost, this makes it a delay. */
            if (spin % 1000 == 999 && __atomic_load_n(&c->in_guest, __ATOMIC_SEQ_CST))
                host_kick(c->thread);
        }
    }
    if (self) {
        __atomic_store_n(&self->in_guest, 1, __ATOMIC_SEQ_CST);
        self->stats.exclusives++;
    }
}

void bt_exclusive_end(struct bt_vm *bt, struct bt_vcpu *self)
{
    if (self && (bt->nvcpus == 1 || --self->excl_depth))
        return;
    __atomic_store_n(&bt->excl, 0, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < bt->nvcpus; i++)
        if (bt->vcpu[i] != self && !__atomic_load_n(&bt->vcpu[i]->in_guest, __ATOMIC_SEQ_CST))
            host_event_set(&bt->vcpu[i]->excl_event);
    host_mutex_unlock(&bt->excl_lock);
}
