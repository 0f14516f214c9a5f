/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests are done by threads of the device's own, a batch at a time: taken from the rings under
 * the VM lock, done without it straight between disk and guest memory, given back under it.
 */
#include "dev/virtio/blk.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "dev/virtio/pci.h"

#define SECTOR 512u
#define QUEUE_SIZE 256
/* With header and status a request may fill the queue. */
#define SEG_MAX (QUEUE_SIZE - 2)
#define THREADS 4
#define BATCH 16
#define CLASS_STORAGE 0x018000
#define STATE_VERSION 1

/* Features (5.2.3) */
#define F_SEG_MAX BIT64(2)
#define F_RO BIT64(5)
#define F_BLK_SIZE BIT64(6)
#define F_FLUSH BIT64(9)
#define F_TOPOLOGY BIT64(10)
#define F_CONFIG_WCE BIT64(11)
#define F_MQ BIT64(12)
#define F_DISCARD BIT64(13)
#define F_WRITE_ZEROES BIT64(14)

/* Request types and states (5.2.6) */
#define T_IN 0
#define T_OUT 1
#define T_FLUSH 4
#define T_GET_ID 8
#define T_DISCARD 11
#define T_WRITE_ZEROES 13
#define S_OK 0
#define S_IOERR 1
#define S_UNSUPP 2

#define ID_SIZE 20
#define UNMAP 1u

/* Discards and zeroes: so many ranges a request, so many sectors a range. */
#define RANGES_MAX 16
#define RANGE_SECTORS_MAX 0x3fffffu

/* While requests are waited for longer than this, the host's disk is slow: threads then take one
 * each instead of one thread many. Copying does not count: writes to one file do not copy at the
 * same time, threads would only be in each other's way. */
#define SLOW_NS 100000u
/* Finished requests are not held back longer than this for others of their batch. */
#define HOLD_NS 50000u

/* Configuration (5.2.4), as it lies in memory. */
struct blk_config {
    u64 capacity;
    u32 size_max, seg_max;
    u16 cylinders;
    u8 heads, sectors;
    u32 blk_size;
    u8 physical_block_exp, alignment_offset;
    u16 min_io_size;
    u32 opt_io_size;
    u8 writeback, unused0;
    u16 num_queues;
    u32 max_discard_sectors, max_discard_seg, discard_sector_alignment;
    u32 max_write_zeroes_sectors, max_write_zeroes_seg;
    u8 write_zeroes_may_unmap, unused1[3];
};
_Static_assert(sizeof(struct blk_config) == 64 && offsetof(struct blk_config, num_queues) == 34,
               "virtio 1.2 5.2.4");

struct request_header {
    u32 type, reserved;
    u64 sector;
};

struct range {
    u64 sector;
    u32 sectors, flags;
};

struct request {
    struct virtq_chain chain;
    struct host_iov iov[SEG_MAX + 2];
    unsigned queue;
    u32 written;
    bool slow; /* neither a read nor a write: may take long */
};

/* What a thread works with. */
struct context {
    bool busy;
    struct host_iov data[SEG_MAX + 2];
    struct request batch[BATCH];
};

struct blk {
    struct device dev;
    struct virtio_device virtio;
    struct virtio_pci pci;
    struct blockdev *disk;
    char id[ID_SIZE];
    unsigned nqueues;
    bool no_doorbell;
    struct host_workers *workers;
    struct context *context; /* THREADS of them; busy: VM lock */
    unsigned first_queue;    /* where the next batch begins to look; VM lock */
    bool stopping;           /* VM lock */
    bool held;               /* the threads take nothing from the rings; VM lock */
    struct host_event rests; /* while held: a thread has come to rest */
    struct host_bh resume;   /* ends that */
    u32 average_ns;          /* that a request takes, roughly; atomic */
    u32 waited_ns;           /* likewise, that a thread was not running meanwhile; atomic */
    u8 writeback;            /* the configuration field; atomic */
    u32 write_errors;        /* logged so far; atomic */
};

/* --- requests, without the VM lock ---------------------------------------------------------------
 */

/* The guest sees only that something failed; the owner of the disk is told why, not for ever. */
static void complain(struct blk *b, const char *what, int err)
{
    if (__atomic_fetch_add(&b->write_errors, 1, __ATOMIC_RELAXED) < 5)
        log_error("%s: %s failed: %s", b->virtio.name, what,
                  err == -ENOSPC ? "no space left on the host" : "input/output error");
}

static u8 result(struct blk *b, const char *what, int err)
{
    if (!err)
        return S_OK;
    complain(b, what, err);
    return S_IOERR;
}

static bool within(const struct blk *b, u64 sector, u64 len)
{
    u64 capacity = b->disk->size / SECTOR;

    return len % SECTOR == 0 && sector <= capacity && len / SECTOR <= capacity - sector;
}

/* Whether an acknowledged write must have reached the disk (5.2.6.2). */
static bool writethrough(const struct blk *b)
{
    const struct virtio_device *d = &b->virtio;

    if (virtio_has(d, F_CONFIG_WCE))
        return !__atomic_load_n(&b->writeback, __ATOMIC_RELAXED);
    return !virtio_has(d, F_FLUSH);
}

static u8 read_data(struct blk *b, struct context *x, struct request *r, u64 sector)
{
    const struct virtq_chain *c = &r->chain;
    u64 len = c->in_len - 1; /* the status byte comes last */
    int n = iov_slice(c->iov + c->nout, c->nin, 0, len, x->data, ARRAY_SIZE(x->data));
    int err;

    if (n < 0 || !within(b, sector, len))
        return S_IOERR;
    err = len ? b->disk->ops->readv(b->disk, x->data, (unsigned)n, sector * SECTOR) : 0;
    if (!err)
        r->written = (u32)len;
    return result(b, "reading", err);
}

static u8 write_data(struct blk *b, struct context *x, struct request *r, u64 sector)
{
    const struct virtq_chain *c = &r->chain;
    u64 len = c->out_len - sizeof(struct request_header);
    int n = iov_slice(c->iov, c->nout, sizeof(struct request_header), len, x->data,
                      ARRAY_SIZE(x->data));
    int err;

    if (n < 0 || b->disk->readonly || !within(b, sector, len))
        return S_IOERR;
    err = len ? b->disk->ops->writev(b->disk, x->data, (unsigned)n, sector * SECTOR) : 0;
    if (!err && writethrough(b))
        err = b->disk->ops->flush(b->disk);
    return result(b, "writing", err);
}

static u8 do_range(struct blk *b, u32 type, const struct range *g)
{
    struct blockdev *disk = b->disk;
    u64 off = g->sector * SECTOR, len = (u64)g->sectors * SECTOR;
    bool unmap = g->flags & UNMAP;

    if ((g->flags & ~UNMAP) || (type == T_DISCARD && unmap))
        return S_UNSUPP;
    if (g->sectors > RANGE_SECTORS_MAX || !within(b, g->sector, len))
        return S_IOERR;
    if (!len)
        return S_OK;
    if (type == T_DISCARD)
        return result(b, "discarding", disk->ops->discard(disk, off, len));
    return result(b, "writing zeroes", disk->ops->write_zeroes(disk, off, len, unmap));
}

static u8 do_ranges(struct blk *b, const struct request *r, u32 type)
{
    const struct virtq_chain *c = &r->chain;
    u64 len = c->out_len - sizeof(struct request_header);
    struct range ranges[RANGES_MAX];
    u8 status = S_OK;

    if (!virtio_has(&b->virtio, type == T_DISCARD ? F_DISCARD : F_WRITE_ZEROES))
        return S_UNSUPP;
    if (b->disk->readonly || !len || len % sizeof(ranges[0]) || len > sizeof(ranges))
        return S_IOERR;
    iov_read(c->iov, c->nout, sizeof(struct request_header), ranges, len);
    for (unsigned i = 0; i < len / sizeof(ranges[0]) && status == S_OK; i++)
        status = do_range(b, type, &ranges[i]);
    if (status == S_OK && writethrough(b))
        status = result(b, "flushing", b->disk->ops->flush(b->disk));
    return status;
}

static u8 get_id(struct blk *b, struct request *r)
{
    const struct virtq_chain *c = &r->chain;
    u64 len = c->in_len - 1 < ID_SIZE ? c->in_len - 1 : ID_SIZE;

    r->written = (u32)iov_write(c->iov + c->nout, c->nin, 0, b->id, len);
    return S_OK;
}

static void do_request(struct blk *b, struct context *x, struct request *r)
{
    const struct virtq_chain *c = &r->chain;
    struct request_header h;
    u8 status;

    iov_read(c->iov, c->nout, 0, &h, sizeof(h));
    switch (h.type) {
    case T_IN:
        status = read_data(b, x, r, h.sector);
        break;
    case T_OUT:
        status = write_data(b, x, r, h.sector);
        break;
    case T_FLUSH:
        status = result(b, "flushing", b->disk->ops->flush(b->disk));
        break;
    case T_GET_ID:
        status = get_id(b, r);
        break;
    case T_DISCARD:
    case T_WRITE_ZEROES:
        status = do_ranges(b, r, h.type);
        break;
    default:
        status = S_UNSUPP;
        break;
    }
    iov_write(c->iov + c->nout, c->nin, c->in_len - 1, &status, 1);
    /* "written" is a prefix of the writable memory (2.7.8.2); all of it is when the status is. */
    if (r->written + 1 == c->in_len)
        r->written++;
    else
        r->written = (u32)c->in_len;
}

/* --- batches, with the VM lock -------------------------------------------------------------------
 */

/* The next request of queue q. One without a header or a place for the status cannot be answered.
 */
static bool take(struct blk *b, unsigned q, struct request *r)
{
    struct virtio_device *d = &b->virtio;
    u32 type;

    r->chain.iov = r->iov;
    r->chain.cap = ARRAY_SIZE(r->iov);
    if (!virtq_pop(d, q, &r->chain))
        return false;
    if (r->chain.out_len < sizeof(struct request_header) || !r->chain.in_len ||
        r->chain.in_len > UINT32_MAX) {
        virtq_drop(d, q, &r->chain);
        virtio_broken(d, "a block request without header or status");
        return false;
    }
    r->queue = q;
    r->written = 0;
    /* Only a guess about time: the request itself is read when it is done. */
    iov_read(r->iov, r->chain.nout, 0, &type, sizeof(type));
    r->slow = type != T_IN && type != T_OUT;
    return true;
}

static u32 average(const u32 *ns)
{
    return __atomic_load_n(ns, __ATOMIC_RELAXED);
}

static void add_to_average(u32 *ns, u64 sample)
{
    u64 max = 100 * SLOW_NS;

    __atomic_store_n(ns, (average(ns) * 7 + (u32)(sample < max ? sample : max)) / 8,
                     __ATOMIC_RELAXED);
}

static bool disk_is_slow(const struct blk *b)
{
    return average(&b->average_ns) > SLOW_NS && average(&b->waited_ns) > SLOW_NS;
}

/* A slow request ends the batch: nothing waits behind it. */
static unsigned take_batch(struct blk *b, struct context *x)
{
    unsigned n = 0, max = disk_is_slow(b) ? 1 : BATCH;

    for (unsigned i = 0; i < b->nqueues && n < max; i++) {
        unsigned q = (b->first_queue + i) % b->nqueues;

        while (n < max && take(b, q, &x->batch[n]))
            if (x->batch[n++].slow)
                max = n;
    }
    b->first_queue = (b->first_queue + 1) % b->nqueues;
    return n;
}

static bool more(struct blk *b)
{
    for (unsigned q = 0; q < b->nqueues; q++)
        if (virtq_ready(&b->virtio, q))
            return true;
    return false;
}

/* Gives back requests [from, to) of the batch. */
static void finish(struct blk *b, struct context *x, unsigned from, unsigned to)
{
    vm_lock(b->virtio.vm);
    for (unsigned i = from; i < to; i++)
        virtq_push(&b->virtio, x->batch[i].queue, &x->batch[i].chain, x->batch[i].written);
    for (unsigned q = 0; q < b->nqueues; q++)
        virtq_signal(&b->virtio, q);
    vm_unlock(b->virtio.vm);
}

static void do_batch(struct blk *b, struct context *x, unsigned n)
{
    u64 begin = host_monotonic_ns(), since = begin, now = begin, ran;
    bool ask = average(&b->average_ns) > SLOW_NS; /* what short requests cannot afford */
    unsigned done = 0;

    ran = ask ? host_thread_cpu_ns() : 0;

    for (unsigned i = 0; i < n; i++) {
        if (x->batch[i].slow && i > done) {
            finish(b, x, done, i);
            done = i;
        }
        do_request(b, x, &x->batch[i]);
        now = host_monotonic_ns();
        if (now - since > HOLD_NS || i + 1 == n) {
            finish(b, x, done, i + 1);
            done = i + 1;
            since = now;
        }
    }
    add_to_average(&b->average_ns, (now - begin) / n);
    if (ask) {
        ran = host_thread_cpu_ns() - ran;
        add_to_average(&b->waited_ns, now - begin > ran ? (now - begin - ran) / n : 0);
    }
}

static void set_notify(struct blk *b, bool on)
{
    for (unsigned q = 0; q < b->nqueues; q++)
        virtq_want_notify(&b->virtio, q, on);
}

static void work(void *opaque)
{
    struct blk *b = opaque;
    struct context *x = b->context;
    unsigned n;

    vm_lock(b->virtio.vm);
    while (x->busy)
        x++;
    x->busy = true;
    while (!b->stopping && !b->held) {
        n = take_batch(b, x);
        if (!n) {
            set_notify(b, true);
            if (!more(b))
                break;
            continue;
        }
        /* A thread that comes back to the rings soon needs no notification. While it waits for a
         * slow disk others are to be woken. */
        set_notify(b, disk_is_slow(b) || x->batch[n - 1].slow);
        if (more(b))
            host_workers_kick(b->workers);
        vm_unlock(b->virtio.vm);
        do_batch(b, x, n);
        vm_lock(b->virtio.vm);
    }
    x->busy = false;
    if (b->held)
        host_event_set(&b->rests);
    vm_unlock(b->virtio.vm);
}

/* --- saving and loading --------------------------------------------------------------------------
 */

static struct blk *blk_of(struct device *d)
{
    return container_of(d, struct blk, dev);
}

static bool busy(const struct blk *b)
{
    for (unsigned i = 0; i < THREADS; i++)
        if (b->context[i].busy)
            return true;
    return false;
}

/*
 * What the threads have taken they finish; what they have not taken stays in the rings, also those
 * of whoever goes on from a copy. Then the disk holds what the guest was told it does, also for
 * whoever copies it.
 */
static void drain(struct device *dev)
{
    struct blk *b = blk_of(dev);
    struct blockdev *disk = b->disk;

    vm_lock(b->virtio.vm);
    b->held = true;
    while (busy(b)) {
        vm_unlock(b->virtio.vm);
        host_event_wait(&b->rests, UINT64_MAX);
        vm_lock(b->virtio.vm);
    }
    vm_unlock(b->virtio.vm);
    if (!disk->readonly)
        result(b, "flushing", disk->ops->flush(disk));
    host_bh_schedule(&b->resume);
}

/* Event loop: it goes on, so what was to be done is. A machine that was ended by being saved does
 * nothing any more that whoever goes on from the copy would do again. */
static void resume(void *opaque)
{
    struct blk *b = opaque;

    vm_lock(b->virtio.vm);
    b->held = !vm_is_running(b->virtio.vm);
    vm_unlock(b->virtio.vm);
    host_workers_kick(b->workers);
}

static int save(const struct device *dev, struct stream *out, const char **why)
{
    const struct blk *b = container_of(dev, struct blk, dev);

    stream_put_u16(out, STATE_VERSION);
    stream_put_u64(out, b->disk->size);
    stream_put_u8(out, b->disk->readonly);
    stream_put_u8(out, b->writeback);
    return virtio_pci_save(&b->pci, out, why);
}

static int load(struct device *dev, struct stream *in)
{
    struct blk *b = blk_of(dev);
    u8 writeback;

    if (stream_get_u16(in) != STATE_VERSION || stream_get_u64(in) != b->disk->size ||
        stream_get_u8(in) != b->disk->readonly)
        return -EINVAL;
    writeback = stream_get_u8(in);
    if (writeback > 1 || virtio_pci_load(&b->pci, in))
        return -EINVAL;
    b->writeback = writeback;
    return 0;
}

static void loaded(struct device *dev)
{
    host_workers_kick(blk_of(dev)->workers);
}

/* --- the device ----------------------------------------------------------------------------------
 */

static struct blk *of(struct virtio_device *d)
{
    return container_of(d, struct blk, virtio);
}

static void notify(struct virtio_device *d, unsigned q)
{
    (void)q;
    host_workers_kick(of(d)->workers);
}

static int doorbell(struct virtio_device *d, unsigned q)
{
    const struct blk *b = of(d);

    (void)q;
    return b->no_doorbell ? -1 : host_workers_event(b->workers);
}

static u32 config_read(struct virtio_device *d, unsigned off, unsigned size)
{
    struct blk *b = of(d);
    struct blk_config c = {.capacity = b->disk->size / SECTOR,
                           .seg_max = SEG_MAX,
                           .blk_size = SECTOR,
                           .physical_block_exp = 3, /* 4 KiB: what host file systems have */
                           .min_io_size = 8,
                           .writeback = b->writeback,
                           .num_queues = (u16)b->nqueues,
                           .max_discard_sectors = RANGE_SECTORS_MAX,
                           .max_discard_seg = RANGES_MAX,
                           .discard_sector_alignment = 8,
                           .max_write_zeroes_sectors = RANGE_SECTORS_MAX,
                           .max_write_zeroes_seg = RANGES_MAX,
                           .write_zeroes_may_unmap = 1};
    u32 val = 0;

    memcpy(&val, (const u8 *)&c + off, size);
    return val;
}

static void config_write(struct virtio_device *d, unsigned off, unsigned size, u32 val)
{
    if (off == offsetof(struct blk_config, writeback) && size == 1 && virtio_has(d, F_CONFIG_WCE))
        __atomic_store_n(&of(d)->writeback, val & 1, __ATOMIC_RELAXED);
}

static void reset_device(struct virtio_device *d)
{
    of(d)->writeback = 1;
}

static const struct virtio_ops virtio_blk_ops = {.config_read = config_read,
                                                 .config_write = config_write,
                                                 .notify = notify,
                                                 .doorbell = doorbell,
                                                 .reset = reset_device};

static void reset(struct device *d)
{
    virtio_pci_reset(&blk_of(d)->pci);
}

static void unplug(struct device *d)
{
    virtio_pci_unplug(&blk_of(d)->pci);
}

static void destroy(struct device *d)
{
    struct blk *b = blk_of(d);

    vm_lock(b->virtio.vm);
    b->stopping = true;
    vm_unlock(b->virtio.vm);
    host_bh_cancel(&b->resume);
    host_workers_destroy(b->workers);
    host_free(b->context);
    host_free(b);
}

static const struct device_ops device_ops = {.name = "virtio-blk",
                                             .reset = reset,
                                             .drain = drain,
                                             .save = save,
                                             .load = load,
                                             .loaded = loaded,
                                             .unplug = unplug,
                                             .destroy = destroy};

struct device *virtio_blk_create(struct vm *vm, struct device *pci_host, u8 devfn,
                                 const struct virtio_blk_config *cfg)
{
    struct blk *b = host_zalloc(sizeof(*b));
    struct virtio_device *d;

    if (!b)
        return NULL;
    d = &b->virtio;
    d->vm = vm;
    b->dev.ops = &device_ops;
    b->disk = cfg->disk;
    b->writeback = 1;
    b->nqueues = cfg->queues;
    b->no_doorbell = cfg->no_doorbell;
    host_bh_init(&b->resume, resume, b);
    for (size_t i = 0; cfg->serial && cfg->serial[i] && i < ID_SIZE; i++)
        b->id[i] = cfg->serial[i];
    virtio_init(d, vm, &virtio_blk_ops, VIRTIO_ID_BLOCK, cfg->name, sizeof(struct blk_config));
    d->irqfds = !cfg->no_irqfd;
    d->offered |= F_SEG_MAX | F_BLK_SIZE | F_FLUSH | F_TOPOLOGY | F_CONFIG_WCE;
    if (cfg->queues > 1)
        d->offered |= F_MQ;
    if (cfg->disk->readonly)
        d->offered |= F_RO;
    else
        d->offered |= F_WRITE_ZEROES | (cfg->disk->can_discard ? F_DISCARD : 0);
    for (unsigned i = 0; i < cfg->queues; i++)
        virtio_add_queue(d, QUEUE_SIZE);
    b->context = host_zalloc(THREADS * sizeof(*b->context));
    if (!b->context || host_workers_create(&b->workers, cfg->name, THREADS, work, b) ||
        virtio_pci_init(&b->pci, d, pci_host, devfn, CLASS_STORAGE)) {
        destroy(&b->dev);
        return NULL;
    }
    vm_add_device(vm, &b->dev);
    return &b->dev;
}
