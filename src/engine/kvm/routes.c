/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM's table of interrupt routes: what the I/O APIC's pins send, so that the EOIs come out, and
 * what irqfds send. Linux Documentation/virt/kvm/api.rst, KVM_SET_GSI_ROUTING, KVM_IRQFD.
 *
 * The table is set as a whole, and that waits until no vCPU and no device uses the old one: so only
 * when a route has changed, and a route stays in it while its irqfd is masked.
 */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "engine/kvm/kvm_priv.h"

/* struct kvm_irq_routing with room for entries. */
struct routing {
    u32 nr, flags;
    struct kvm_irq_routing_entry entry[ENGINE_PINS_MAX + KVM_IRQFDS];
};
_Static_assert(offsetof(struct routing, entry) == offsetof(struct kvm_irq_routing, entries),
               "not laid out as KVM's");

static void add(struct routing *r, u32 gsi, u32 addr, u32 data)
{
    r->entry[r->nr++] = (struct kvm_irq_routing_entry){
        .gsi = gsi,
        .type = KVM_IRQ_ROUTING_MSI,
        .u.msi = {.address_lo = addr, .data = data},
    };
}

/* KVM looks at those of the pins for the EOIs that are exits. */
static int put_routes(struct kvm_machine *m)
{
    struct routing r = {0};
    int err;

    for (u32 pin = 0; pin < ENGINE_PINS_MAX; pin++)
        if (m->pin[pin].data)
            add(&r, pin, m->pin[pin].addr, m->pin[pin].data);
    for (u32 i = 0; i < KVM_IRQFDS; i++)
        if (m->irqfd[i].routed)
            add(&r, ENGINE_PINS_MAX + i, m->irqfd[i].addr, m->irqfd[i].data);
    m->routings++;
    err = kvm_ioctl(m->fd, KVM_SET_GSI_ROUTING, &r);
    m->graced_ns = host_monotonic_ns();
    m->routes_stale = err != 0;
    return err;
}

void kvm_pin(struct vm *vm, unsigned n, u64 addr, u32 data)
{
    struct kvm_machine *m = vm->engine_vm;

    if (n >= ENGINE_PINS_MAX || (m->pin[n].data == data && (!data || m->pin[n].addr == (u32)addr)))
        return;
    m->pin[n].addr = (u32)addr;
    m->pin[n].data = data;
    if (put_routes(m))
        log_warn("engine kvm: KVM does not take the routes of the I/O APIC");
}

/* --- irqfds --- */

int kvm_irqfds_create(struct kvm_machine *m)
{
    for (unsigned i = 0; i < KVM_IRQFDS; i++)
        m->irqfd[i].e.fd = -1;
    for (unsigned i = 0; i < KVM_IRQFDS; i++) {
        m->irqfd[i].e.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (m->irqfd[i].e.fd < 0)
            return -errno;
    }
    return 0;
}

void kvm_irqfds_destroy(struct kvm_machine *m)
{
    for (unsigned i = 0; i < KVM_IRQFDS; i++)
        if (m->irqfd[i].e.fd >= 0)
            close(m->irqfd[i].e.fd);
}

static int listen(struct kvm_machine *m, struct kvm_irqfd_slot *s, bool on)
{
    struct kvm_irqfd r = {
        .fd = (u32)s->e.fd,
        .gsi = (u32)(ENGINE_PINS_MAX + (s - m->irqfd)),
        .flags = on ? 0 : KVM_IRQFD_FLAG_DEASSIGN,
    };

    return kvm_ioctl(m->fd, KVM_IRQFD, &r);
}

/*
 * Setting routes and deassigning end with a grace period of SRCU. A deassigning that begins within
 * 25 us of the last one's end is not hurried and takes ticks of the host's clock, up to 16 ms:
 * waiting is quicker (Linux kernel-parameters.txt, srcutree.exp_holdoff).
 */
#define HOLDOFF_NS 40000u

static void hold_off(const struct kvm_machine *m)
{
    struct host_event never = {0};
    u64 since = host_monotonic_ns() - m->graced_ns;

    if (since < HOLDOFF_NS)
        host_event_wait(&never, HOLDOFF_NS - since);
}

/*
 * Most messages KVM delivers within the write to the eventfd; those for which it must look at every
 * APIC are a kernel thread's to deliver, later (virt/kvm/eventfd.c, irqfd_wakeup: -EWOULDBLOCK). To
 * deassign an irqfd waits for that thread (kvm_irqfd_deassign: no more interrupts on this GSI once
 * it returns), so that what was sent is in the APICs' registers.
 */
static void stop(struct kvm_machine *m, struct kvm_irqfd_slot *s)
{
    if (!s->e.live)
        return;
    hold_off(m);
    listen(m, s, false);
    m->graced_ns = host_monotonic_ns();
    s->e.live = false;
}

/* Where KVM has no memory for it, messages are sent one by one as without irqfds. */
static void start(struct kvm_machine *m, struct kvm_irqfd_slot *s)
{
    if (m->routes_stale && put_routes(m))
        stop(m, s); /* from the old route */
    else if (!s->e.live)
        s->e.live = !listen(m, s, true);
}

void kvm_irqfds_stop(struct kvm_machine *m)
{
    for (unsigned i = 0; i < KVM_IRQFDS; i++)
        stop(m, &m->irqfd[i]);
}

void kvm_irqfds_start(struct kvm_machine *m)
{
    for (unsigned i = 0; i < KVM_IRQFDS; i++)
        if (m->irqfd[i].on)
            start(m, &m->irqfd[i]);
}

struct irqfd *kvm_get_irqfd(struct vm *vm)
{
    struct kvm_machine *m = vm->engine_vm;

    for (unsigned i = 0; i < KVM_IRQFDS; i++)
        if (!m->irqfd[i].taken) {
            m->irqfd[i].taken = true;
            return &m->irqfd[i].e;
        }
    return NULL;
}

static struct kvm_irqfd_slot *slot_of(struct irqfd *e)
{
    return container_of(e, struct kvm_irqfd_slot, e);
}

void kvm_put_irqfd(struct vm *vm, struct irqfd *e)
{
    struct kvm_irqfd_slot *s = slot_of(e);
    eventfd_t left;

    kvm_route(vm, e, false, 0, 0);
    eventfd_read(e->fd, &left); /* for nobody any more */
    s->taken = false;
}

void kvm_route(struct vm *vm, struct irqfd *e, bool on, u64 addr, u32 data)
{
    struct kvm_machine *m = vm->engine_vm;
    struct kvm_irqfd_slot *s = slot_of(e);
    bool same = s->routed && s->addr == (u32)addr && s->data == data;

    if (s->on == on && (!on || same))
        return;
    s->on = on;
    if (!on) {
        stop(m, s);
        return;
    }
    if (!same) {
        s->routed = true;
        s->addr = (u32)addr;
        s->data = data;
        m->routes_stale = true;
    }
    if (vm->apics_in_engine)
        start(m, s);
}
