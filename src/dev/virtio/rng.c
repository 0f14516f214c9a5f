/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buffers are filled on the event loop, with the host's random numbers and without the VM lock. A
 * guest may have any number of them, but for each it waits its turn among what else the loop does.
 */
#include "dev/virtio/rng.h"

#include <errno.h>

#include "base/log.h"
#include "dev/virtio/pci.h"

#define QUEUE_SIZE 64
#define STATE_VERSION 1
#define CLASS_OTHER 0x00ff00 /* device that fits no class (PCI code and ID assignment, 00h) */

/* What a buffer gets at most: one may be filled in part (5.4.6.2); and what one turn gives. */
#define BUFFER_MAX 4096u
#define TURN_MAX (16 * BUFFER_MAX)

struct rng {
    struct device dev;
    struct virtio_device virtio;
    struct virtio_pci pci;
    struct host_bh work;
    bool complained;
};

/* Random bytes into the chain; how many. No lock. */
static u32 fill(struct rng *r, const struct virtq_chain *c)
{
    u32 left = BUFFER_MAX;

    for (unsigned i = c->nout; i < c->nout + c->nin && left; i++) {
        u32 n = c->iov[i].len < left ? (u32)c->iov[i].len : left;

        if (host_random(c->iov[i].base, n)) {
            if (!r->complained)
                log_warn("%s: the host has no random numbers to give", r->virtio.name);
            r->complained = true;
            break;
        }
        left -= n;
    }
    return BUFFER_MAX - left;
}

/* Event loop. */
static void work(void *opaque)
{
    struct rng *r = opaque;
    struct virtio_device *d = &r->virtio;
    struct host_iov iov[QUEUE_SIZE];
    struct virtq_chain c = {.iov = iov, .cap = QUEUE_SIZE};

    vm_lock(d->vm);
    for (u32 given = 0; given < TURN_MAX && virtq_pop(d, 0, &c);) {
        u32 n;

        vm_unlock(d->vm);
        n = fill(r, &c);
        vm_lock(d->vm);
        virtq_push(d, 0, &c, n);
        given += n + 256; /* empty ones are work too */
    }
    virtq_signal(d, 0);
    if (virtq_ready(d, 0))
        host_bh_schedule(&r->work);
    vm_unlock(d->vm);
}

static u32 config_read(struct virtio_device *d, unsigned off, unsigned size)
{
    (void)d;
    (void)off;
    (void)size;
    return 0; /* never: there is no configuration */
}

static void notify(struct virtio_device *d, unsigned q)
{
    (void)q;
    host_bh_schedule(&container_of(d, struct rng, virtio)->work);
}

static const struct virtio_ops virtio_rng_ops = {.config_read = config_read, .notify = notify};

static void reset(struct device *d)
{
    virtio_pci_reset(&container_of(d, struct rng, dev)->pci);
}

/* Nothing is in flight between two turns of the event loop. */
static int save(const struct device *d, struct stream *out, const char **why)
{
    stream_put_u16(out, STATE_VERSION);
    return virtio_pci_save(&container_of(d, struct rng, dev)->pci, out, why);
}

static int load(struct device *d, struct stream *in)
{
    if (stream_get_u16(in) != STATE_VERSION)
        return -EINVAL;
    return virtio_pci_load(&container_of(d, struct rng, dev)->pci, in);
}

static void loaded(struct device *d)
{
    host_bh_schedule(&container_of(d, struct rng, dev)->work);
}

static void destroy(struct device *d)
{
    struct rng *r = container_of(d, struct rng, dev);

    host_bh_cancel(&r->work);
    host_free(r);
}

static const struct device_ops ops = {.name = "virtio-rng",
                                      .reset = reset,
                                      .save = save,
                                      .load = load,
                                      .loaded = loaded,
                                      .destroy = destroy};

struct device *virtio_rng_create(struct vm *vm, struct device *pci_host, u8 devfn, const char *name)
{
    struct rng *r = host_zalloc(sizeof(*r));

    if (!r)
        return NULL;
    r->dev.ops = &ops;
    host_bh_init(&r->work, work, r);
    virtio_init(&r->virtio, vm, &virtio_rng_ops, VIRTIO_ID_ENTROPY, name, 0);
    virtio_add_queue(&r->virtio, QUEUE_SIZE);
    if (virtio_pci_init(&r->pci, &r->virtio, pci_host, devfn, CLASS_OTHER)) {
        host_free(r);
        return NULL;
    }
    vm_add_device(vm, &r->dev);
    return &r->dev;
}
