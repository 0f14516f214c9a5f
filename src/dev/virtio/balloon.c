/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory is given back on a thread of the device's, without the VM lock: the host may take its time
 * over it. What is given back reads as zeroes when the guest touches it again.
 */
#include "dev/virtio/balloon.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "dev/virtio/pci.h"

#define CLASS_OTHER 0x00ff00
#define QUEUE_SIZE 128
#define STATE_VERSION 1

/* Features (5.5.3). Not the others: nothing has to be told before the guest takes a page back, and
 * pages are not expected to keep a poison value. */
#define BALLOON_F_DEFLATE_ON_OOM BIT64(2)
#define BALLOON_F_PAGE_REPORTING BIT64(5)

/* Queues (5.5.2). Those of features that were not negotiated do not count. */
#define INFLATE 0
#define DEFLATE 1
#define REPORTING 2

/* Page numbers are of 4 KiB pages, whatever the guest's own are (5.5.6). */
#define PFN_SHIFT 12
/* Numbers in one chain; Linux sends 256. */
#define PFNS_MAX 16384u
#define PFNS_PIECE 256u

/* Configuration (5.5.4), as far as our features reach */
struct balloon_config {
    u32 num_pages, actual;
};
_Static_assert(sizeof(struct balloon_config) == 8, "5.5.4");

struct balloon {
    struct device dev;
    struct virtio_device virtio;
    struct virtio_pci pci;
    struct host_workers *worker;
    struct balloon_config config;
    u32 target_known; /* num_pages as the guest knows it; between load and loaded */
    bool complained;
    bool busy;                       /* the worker is; VM lock */
    bool held;                       /* it takes nothing from the queues; VM lock */
    struct host_event rests;         /* while held: it does no more */
    struct host_bh resume;           /* ends that */
    struct host_iov iov[QUEUE_SIZE]; /* the worker's */
};

/* --- giving memory back --------------------------------------------------------------------------
 */

/* [a, a+len) of RAM, whole pages, at host. The worker, without the lock. */
static void discard(struct balloon *b, gpa_t a, u8 *host, u64 len)
{
    struct vm *vm = b->virtio.vm;
    int r = host_ram_discard(host, len);

    if (r && !b->complained) {
        b->complained = true;
        log_warn("%s: the host does not take memory back (error %d)", b->virtio.name, -r);
    }
    if (r)
        return;
    vm_lock(vm);
    vm_dma_written(vm, a, len);
    vm_unlock(vm);
}

/* Pages [first, first+n), as far as they are RAM the guest may write. */
static void discard_pages(struct balloon *b, u64 first, u64 n)
{
    while (n) {
        gpa_t a = gpa(first << PFN_SHIFT);
        const struct mem_slot *s = guest_mem_slot(&b->virtio.vm->mem, a);
        u64 here = 1;

        if (s && !s->readonly) {
            here = (s->gpa + s->size - a.v) >> PFN_SHIFT; /* slots are of whole pages */
            here = here < n ? here : n;
            discard(b, a, s->host + (a.v - s->gpa), here << PFN_SHIFT);
        }
        first += here;
        n -= here;
    }
}

/* Gives back runs of neighbours, as which drivers mostly name pages, in either direction. */
static void discard_list(struct balloon *b, const u32 *pfn, unsigned n)
{
    u64 first = 0, count = 0;

    for (unsigned i = 0; i < n; i++) {
        if (count && pfn[i] == first + count) {
            count++;
        } else if (count && (u64)pfn[i] + 1 == first) {
            first--;
            count++;
        } else {
            discard_pages(b, first, count);
            first = pfn[i];
            count = 1;
        }
    }
    discard_pages(b, first, count);
}

static void inflate(struct balloon *b, const struct virtq_chain *c)
{
    u32 pfn[PFNS_PIECE];
    size_t got;

    for (size_t off = 0; (got = iov_read(c->iov, c->nout, off, pfn, sizeof(pfn))) > 0;) {
        discard_list(b, pfn, (unsigned)(got / sizeof(pfn[0])));
        off += got;
        if (got < sizeof(pfn))
            break;
    }
}

/* Free pages, told as memory the device may write (5.5.6.7). What is no whole page stays. */
static void report(struct balloon *b, const struct virtq_chain *c)
{
    for (unsigned i = c->nout; i < c->nout + c->nin; i++) {
        u64 start, end;
        gpa_t a;

        if (!guest_mem_gpa(&b->virtio.vm->mem, c->iov[i].base, &a))
            continue;
        start = align_up(a.v, PAGE_SIZE);
        end = (a.v + c->iov[i].len) & PAGE_MASK;
        if (start < end)
            discard(b, gpa(start), (u8 *)c->iov[i].base + (start - a.v), end - start);
    }
}

/* --- the worker ----------------------------------------------------------------------------------
 */

/* Takes one chain off queue q; false: there is none. VM lock held. */
static bool handle_one(struct balloon *b, unsigned q, struct virtq_chain *c)
{
    struct virtio_device *d = &b->virtio;

    if (!virtq_pop(d, q, c))
        return false;
    if (q == INFLATE && c->out_len > PFNS_MAX * sizeof(u32)) {
        virtq_drop(d, q, c);
        virtio_broken(d, "too many pages in one request");
        return false;
    }
    vm_unlock(d->vm);
    if (q == INFLATE)
        inflate(b, c);
    else if (q == REPORTING)
        report(b, c);
    vm_lock(d->vm);
    virtq_push(d, q, c, 0);
    return true;
}

static void work(void *opaque)
{
    struct balloon *b = opaque;
    struct virtio_device *d = &b->virtio;
    struct virtq_chain c = {.iov = b->iov, .cap = QUEUE_SIZE};
    bool more = true;

    vm_lock(d->vm);
    b->busy = true;
    while (more) {
        more = false;
        for (unsigned q = 0; q < d->nqueues && !b->held; q++) {
            more |= handle_one(b, q, &c);
            virtq_signal(d, q);
        }
    }
    b->busy = false;
    if (b->held)
        host_event_set(&b->rests);
    vm_unlock(d->vm);
}

/* --- saving and loading --------------------------------------------------------------------------
 */

static struct balloon *balloon_of(struct device *d)
{
    return container_of(d, struct balloon, dev);
}

/* The worker gives back what it has taken; the rest stays in the queues. */
static void drain(struct device *dev)
{
    struct balloon *b = balloon_of(dev);
    struct vm *vm = b->virtio.vm;

    vm_lock(vm);
    b->held = true;
    while (b->busy) {
        vm_unlock(vm);
        host_event_wait(&b->rests, UINT64_MAX);
        vm_lock(vm);
    }
    vm_unlock(vm);
    host_bh_schedule(&b->resume);
}

/* Event loop: it goes on, so what was to be done is. A machine that was ended by being saved does
 * nothing any more that whoever goes on from the copy would do again. */
static void resume(void *opaque)
{
    struct balloon *b = opaque;

    vm_lock(b->virtio.vm);
    b->held = !vm_is_running(b->virtio.vm);
    vm_unlock(b->virtio.vm);
    host_workers_kick(b->worker);
}

static int save(const struct device *dev, struct stream *out, const char **why)
{
    const struct balloon *b = container_of(dev, struct balloon, dev);

    stream_put_u16(out, STATE_VERSION);
    stream_put_u32(out, b->config.num_pages);
    stream_put_u32(out, b->config.actual);
    return virtio_pci_save(&b->pci, out, why);
}

/* What the guest is asked for is part of how the machine was made: see loaded. */
static int load(struct device *dev, struct stream *in)
{
    struct balloon *b = balloon_of(dev);
    u32 actual;

    if (stream_get_u16(in) != STATE_VERSION)
        return -EINVAL;
    b->target_known = stream_get_u32(in);
    actual = stream_get_u32(in);
    if (in->error || virtio_pci_load(&b->pci, in))
        return -EINVAL;
    b->config.actual = actual;
    return 0;
}

static void loaded(struct device *dev)
{
    struct balloon *b = balloon_of(dev);

    if (b->target_known != b->config.num_pages)
        virtio_config_changed(&b->virtio);
    host_workers_kick(b->worker);
}

/* --- the device ----------------------------------------------------------------------------------
 */

static struct balloon *of(struct virtio_device *d)
{
    return container_of(d, struct balloon, virtio);
}

static void notify(struct virtio_device *d, unsigned q)
{
    (void)q;
    host_workers_kick(of(d)->worker);
}

static u32 config_read(struct virtio_device *d, unsigned off, unsigned size)
{
    u32 val = 0;

    memcpy(&val, (const u8 *)&of(d)->config + off, size);
    return val;
}

static void config_write(struct virtio_device *d, unsigned off, unsigned size, u32 val)
{
    if (off == offsetof(struct balloon_config, actual) && size == 4)
        of(d)->config.actual = val;
}

static void reset_virtio(struct virtio_device *d)
{
    of(d)->config.actual = 0;
}

static const struct virtio_ops virtio_balloon_ops = {.config_read = config_read,
                                                     .config_write = config_write,
                                                     .notify = notify,
                                                     .reset = reset_virtio};

static void reset(struct device *d)
{
    virtio_pci_reset(&balloon_of(d)->pci);
}

static void destroy(struct device *d)
{
    struct balloon *b = balloon_of(d);

    host_bh_cancel(&b->resume);
    host_workers_destroy(b->worker);
    host_free(b);
}

static const struct device_ops ops = {.name = "virtio-balloon",
                                      .reset = reset,
                                      .drain = drain,
                                      .save = save,
                                      .load = load,
                                      .loaded = loaded,
                                      .destroy = destroy};

struct device *virtio_balloon_create(struct vm *vm, struct device *pci_host, u8 devfn,
                                     const char *name, u64 target)
{
    struct balloon *b = host_zalloc(sizeof(*b));
    struct virtio_device *d;

    if (!b)
        return NULL;
    d = &b->virtio;
    b->dev.ops = &ops;
    b->config.num_pages = (u32)(target >> PFN_SHIFT);
    host_bh_init(&b->resume, resume, b);
    virtio_init(d, vm, &virtio_balloon_ops, VIRTIO_ID_BALLOON, name, sizeof(b->config));
    d->no_populate = true;
    d->offered |= BALLOON_F_DEFLATE_ON_OOM | BALLOON_F_PAGE_REPORTING;
    for (unsigned i = 0; i < 3; i++)
        virtio_add_queue(d, QUEUE_SIZE);
    if (host_workers_create(&b->worker, "balloon", 1, work, b))
        goto fail;
    if (virtio_pci_init(&b->pci, d, pci_host, devfn, CLASS_OTHER))
        goto fail;
    vm_add_device(vm, &b->dev);
    return &b->dev;
fail:
    host_workers_destroy(b->worker);
    host_free(b);
    return NULL;
}
