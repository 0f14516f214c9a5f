/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queues. Everything is done on the event loop, without the VM lock but to take chains and give
 * them back: a vCPU's notification only wakes it.
 */
#include "dev/virtio/vsock.h"

#include <errno.h>
#include <string.h>

#include "dev/virtio/vsock_priv.h"

#define CLASS_COMMUNICATION 0x078000

#define QUEUE_SIZE 256
#define RX 0
#define TX 1
#define EVENT 2 /* for a guest that was moved to another host (5.10.6.7) */
#define NQUEUES 3
#define STATE_VERSION 1
#define EVENT_TRANSPORT_RESET 0

/* Features (5.10.3) */
#define VSOCK_F_STREAM BIT64(0)

/* Packets of a kind before others get their turn. */
#define TURN 64

static struct vsock *of(struct virtio_device *d)
{
    return container_of(d, struct vsock, virtio);
}

void vsock_wake(struct vsock *v)
{
    if (!v->working)
        host_bh_schedule(&v->work);
}

/* --- from the guest ------------------------------------------------------------------------------
 */

/* No lock. false: no packet. */
static bool handle(struct vsock *v, const struct virtq_chain *c)
{
    struct vsock_header h;

    if (iov_read(c->iov, c->nout, 0, &h, sizeof(h)) != sizeof(h) || h.len > c->out_len - sizeof(h))
        return false;
    vsock_packet(v, &h, c->iov, c->nout, sizeof(h));
    return true;
}

/* VM lock held, but not while a packet is handled. true: there is more. */
static bool take_packets(struct vsock *v)
{
    struct virtio_device *d = &v->virtio;
    struct host_iov iov[QUEUE_SIZE];
    struct virtq_chain c = {.iov = iov, .cap = QUEUE_SIZE};
    bool good;

    virtq_want_notify(d, TX, false);
    for (unsigned i = 0; i < TURN; i++) {
        /* With no room for answers the guest has to take some first (5.10.6.1.2). */
        if (v->stale || v->nreplies == VSOCK_REPLIES_MAX)
            return false;
        if (!virtq_pop(d, TX, &c)) {
            if (!virtq_want_notify(d, TX, true))
                return false;
            virtq_want_notify(d, TX, false);
            continue;
        }
        vm_unlock(d->vm);
        good = handle(v, &c);
        vm_lock(d->vm);
        if (!good) {
            virtq_drop(d, TX, &c);
            if (!v->stale)
                virtio_broken(d, "a packet that is shorter than its header says");
            return false;
        }
        virtq_push(d, TX, &c, 0);
    }
    return true;
}

/* --- to the guest --------------------------------------------------------------------------------
 */

/* Likewise. */
static bool give_packets(struct vsock *v)
{
    struct virtio_device *d = &v->virtio;
    struct host_iov iov[QUEUE_SIZE];
    struct virtq_chain c = {.iov = iov, .cap = QUEUE_SIZE};
    struct vsock_header h;

    v->starved = false;
    if (vsock_pending(v))
        virtq_want_notify(d, RX, false);
    for (unsigned i = 0; i < TURN; i++) {
        bool some;

        if (v->stale || !vsock_pending(v))
            return false;
        if (!virtq_pop(d, RX, &c)) {
            v->starved = !virtq_want_notify(d, RX, true);
            if (v->starved)
                return false;
            virtq_want_notify(d, RX, false);
            continue;
        }
        if (c.nout || c.in_len < sizeof(h)) {
            virtq_drop(d, RX, &c);
            virtio_broken(d, "a receive buffer that has no room for a header");
            return false;
        }
        vm_unlock(d->vm);
        some = vsock_next(v, &h, iov, c.nin, sizeof(h), c.in_len - sizeof(h));
        if (some)
            iov_write(iov, c.nin, 0, &h, sizeof(h));
        vm_lock(d->vm);
        if (some)
            virtq_push(d, RX, &c, (u32)sizeof(h) + h.len);
        else
            virtq_unpop(d, RX, &c);
    }
    return true;
}

/* Tells the guest that none of its connections is there any more, when it has a buffer for that.
 * VM lock held. */
static void tell_moved(struct vsock *v)
{
    struct virtio_device *d = &v->virtio;
    const u32 event = EVENT_TRANSPORT_RESET;
    struct host_iov iov[QUEUE_SIZE];
    struct virtq_chain c = {.iov = iov, .cap = QUEUE_SIZE};

    if (!v->moved || !virtq_pop(d, EVENT, &c))
        return;
    v->moved = false;
    if (c.in_len < sizeof(event)) {
        virtq_drop(d, EVENT, &c);
        virtio_broken(d, "a buffer that has no room for an event");
        return;
    }
    iov_write(iov + c.nout, c.nin, 0, &event, sizeof(event));
    virtq_push(d, EVENT, &c, sizeof(event));
    virtq_signal(d, EVENT);
}

/* Event loop. */
static void work(void *opaque)
{
    struct vsock *v = opaque;
    struct virtio_device *d = &v->virtio;
    bool more;

    v->working = true;
    vm_lock(d->vm);
    if (v->stale) {
        v->stale = false;
        vm_unlock(d->vm);
        vsock_close_all(v);
        vm_lock(d->vm);
    }
    tell_moved(v);
    /* Answers first: the other way may wait for their room. */
    more = give_packets(v);
    more |= take_packets(v);
    virtq_signal(d, RX);
    virtq_signal(d, TX);
    more |= v->stale;
    vm_unlock(d->vm);
    v->working = false;
    if (more || (vsock_pending(v) && !v->starved))
        host_bh_schedule(&v->work);
}

static bool on_request(void *dev, struct sockstream *s, u32 port)
{
    struct vsock *v = dev;
    bool live;

    vm_lock(v->virtio.vm);
    live = virtio_live(&v->virtio) && !v->stale;
    vm_unlock(v->virtio.vm);
    return live && vsock_request(v, s, port);
}

/* --- the device ----------------------------------------------------------------------------------
 */

static u32 config_read(struct virtio_device *d, unsigned off, unsigned size)
{
    u64 cid = of(d)->sock->cid;

    return (u32)(cid >> (8 * off) & size_mask(size));
}

static void notify(struct virtio_device *d, unsigned q)
{
    if (q != EVENT || of(d)->moved)
        host_bh_schedule(&of(d)->work);
}

/* A chain the event loop works on comes back from there. */
static void reset_virtio(struct virtio_device *d)
{
    of(d)->stale = true;
    of(d)->moved = false;
    host_bh_schedule(&of(d)->work);
}

static const struct virtio_ops virtio_vsock_ops = {
    .config_read = config_read, .notify = notify, .reset = reset_virtio};

static void reset(struct device *d)
{
    virtio_pci_reset(&container_of(d, struct vsock, dev)->pci);
}

/*
 * Connections are not part of it, for their other ends are programs on this host: the guest is told
 * that they are gone. Nothing is in flight between two turns of the event loop.
 */
static int save(const struct device *d, struct stream *out, const char **why)
{
    const struct vsock *v = container_of(d, struct vsock, dev);

    stream_put_u16(out, STATE_VERSION);
    /* The guest may still have sockets of the ports before it. */
    stream_put_u32(out, v->next_port);
    return virtio_pci_save(&v->pci, out, why);
}

static int load(struct device *d, struct stream *in)
{
    struct vsock *v = container_of(d, struct vsock, dev);
    u32 next_port;

    if (stream_get_u16(in) != STATE_VERSION)
        return -EINVAL;
    next_port = stream_get_u32(in);
    if (next_port == UINT32_MAX || virtio_pci_load(&v->pci, in))
        return -EINVAL;
    v->next_port = next_port;
    v->moved = virtio_live(&v->virtio);
    return 0;
}

static void loaded(struct device *d)
{
    host_bh_schedule(&container_of(d, struct vsock, dev)->work);
}

static void destroy(struct device *d)
{
    struct vsock *v = container_of(d, struct vsock, dev);

    host_bh_cancel(&v->work);
    v->sock->on_request = NULL;
    vsock_close_all(v);
    host_bh_cancel(&v->work);
    host_free(v);
}

static const struct device_ops ops = {.name = "virtio-vsock",
                                      .reset = reset,
                                      .save = save,
                                      .load = load,
                                      .loaded = loaded,
                                      .destroy = destroy};

struct device *virtio_vsock_create(struct vm *vm, struct device *pci_host, u8 devfn,
                                   const char *name, struct sockdev *sock)
{
    struct vsock *v = host_zalloc(sizeof(*v));
    struct virtio_device *d;

    if (!v)
        return NULL;
    d = &v->virtio;
    v->dev.ops = &ops;
    v->sock = sock;
    v->last_ready = &v->ready;
    host_bh_init(&v->work, work, v);
    virtio_init(d, vm, &virtio_vsock_ops, VIRTIO_ID_SOCKET, name, sizeof(u64));
    d->offered |= VSOCK_F_STREAM;
    for (unsigned i = 0; i < NQUEUES; i++)
        virtio_add_queue(d, QUEUE_SIZE);
    d->irqfds = true;
    if (virtio_pci_init(&v->pci, d, pci_host, devfn, CLASS_COMMUNICATION)) {
        host_free(v);
        return NULL;
    }
    sock->dev = v;
    sock->on_request = on_request;
    vm_add_device(vm, &v->dev);
    return &v->dev;
}
