/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device carries FUSE requests to the share's server and its replies back, and looks at nothing
 * but their headers. A small request goes out at once, from the vCPU's thread, if that does not
 * block: most are of some dozens of bytes, and a thread the less to wake is a third of their time.
 * For the others there is a thread that sends. Another one receives replies and gives the chains
 * back. Both wait only for the server, neither holds the VM lock meanwhile.
 */
#include "dev/virtio/fs.h"

#include <errno.h>
#include <linux/fuse.h>
#include <string.h>

#include "base/log.h"
#include "dev/virtio/pci.h"

#define TAG_SIZE 36
#define CONFIG_SIZE (TAG_SIZE + 4) /* num_request_queues */
#define CLASS_STORAGE_OTHER 0x018000
#define STATE_VERSION 1

/* 5.11.2 */
#define QUEUE_HIPRIO 0
#define QUEUES 2
#define HIPRIO_SIZE 128
/* A driver sends at most as many pages in a request as its queue has entries. */
#define REQUESTS_SIZE VIRTQ_SIZE_MAX

/* Requests that may be with the server; further ones wait in their queue. */
#define INFLIGHT_MAX 64
#define PIECES_MAX 1024

_Static_assert(sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in) + SHAREDEV_DATA_MAX ==
                   SHAREDEV_REQUEST_MAX,
               "core/backend.h");
_Static_assert(sizeof(struct fuse_out_header) + SHAREDEV_DATA_MAX == SHAREDEV_REPLY_MAX,
               "core/backend.h");

enum state {
    FREE,
    SENDING,  /* the sender reads the chain's memory */
    WAITING,  /* for the reply */
    REPLYING, /* the receiver writes the chain's memory */
    ORPHAN,   /* its chain was given back by a reset; the reply is still to come */
};

struct request {
    enum state state;
    u32 uses; /* how often the slot was used: a part of what the server knows the request by */
    unsigned queue;
    u64 unique; /* the guest's */
    struct virtq_chain chain;
    struct host_iov iov[PIECES_MAX];
};

struct fs {
    struct device dev;
    struct virtio_device v;
    struct virtio_pci pci;
    struct sharedev *share;
    struct host_workers *sender;
    struct host_thread *receiver;
    /* Under the VM lock. */
    bool dead;    /* the server is gone (atomic: the sender looks too) */
    bool ending;  /* so is the machine: nobody to tell */
    bool sending; /* the sender is at work, without the lock: the way out is its own */
    bool starved; /* the sender stopped for want of a free slot */
    struct request req[INFLIGHT_MAX];
    /* Of whoever sends, and the receiver's: too big for a stack. */
    struct host_iov out[PIECES_MAX + 1], in[PIECES_MAX];
    u8 scratch[4096];
};

/* --- giving back; VM lock held -------------------------------------------------------------------
 */

static void release(struct fs *f, struct request *r)
{
    r->state = FREE;
    r->uses++;
    if (f->starved) {
        f->starved = false;
        host_workers_kick(f->sender);
    }
}

static void complete(struct fs *f, struct request *r, u32 written)
{
    if (f->ending) {
        virtq_drop(&f->v, r->queue, &r->chain);
    } else {
        virtq_push(&f->v, r->queue, &r->chain, written);
        virtq_signal(&f->v, r->queue);
    }
    release(f, r);
}

/* Answers in the server's place. Where there is no room for an answer none is expected. */
static void complete_error(struct fs *f, struct request *r, int err)
{
    struct fuse_out_header h = {.len = sizeof(h), .error = err, .unique = r->unique};
    u32 n = 0;

    /* Part of a reply may be there. */
    if (r->state == REPLYING)
        virtq_wrote(&f->v, &r->chain, r->chain.in_len);
    if (r->chain.in_len >= sizeof(h))
        n = (u32)iov_write(r->iov + r->chain.nout, r->chain.nin, 0, &h, sizeof(h));
    complete(f, r, n);
}

/* --- the sender ----------------------------------------------------------------------------------
 */

/* The next request of the more urgent queue that has one; VM lock held. NULL: none, or no slot. */
static struct request *take(struct fs *f)
{
    struct request *r = NULL;

    for (unsigned i = 0; i < INFLIGHT_MAX && !r; i++)
        if (f->req[i].state == FREE)
            r = &f->req[i];
    f->starved = !r;
    if (!r)
        return NULL;
    r->chain.iov = r->iov;
    r->chain.cap = PIECES_MAX;
    for (unsigned q = 0; q < QUEUES; q++)
        if (virtq_pop(&f->v, q, &r->chain)) {
            r->queue = q;
            r->state = SENDING;
            return r;
        }
    return NULL;
}

static bool wants_reply(u32 opcode)
{
    return opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET;
}

static u64 unique_of(const struct fs *f, const struct request *r)
{
    return (u64)r->uses << 8 | (u64)(r - f->req);
}

/* Sends it. The header is read once and sent from the copy, so that what was checked is what
 * arrives. 0; -ENOTCONN; or another error, and nothing was sent. may_block: the VM lock is not
 * held; if not, -EAGAIN is an answer. */
static int send(struct fs *f, struct request *r, struct fuse_in_header *h, bool may_block)
{
    const struct sharedev_ops *ops = f->share->ops;
    int n;

    *h = (struct fuse_in_header){0};
    iov_read(r->iov, r->chain.nout, 0, h, sizeof(*h));
    r->unique = h->unique;
    if (__atomic_load_n(&f->dead, __ATOMIC_RELAXED))
        return -ENOTCONN;
    if (h->len < sizeof(*h) || h->len != r->chain.out_len || h->len > SHAREDEV_REQUEST_MAX)
        return -EINVAL;
    if (h->opcode == FUSE_INTERRUPT)
        return -ENOSYS; /* requests end soon enough by themselves */
    h->unique = unique_of(f, r);
    f->out[0] = (struct host_iov){h, sizeof(*h)};
    n = iov_slice(r->iov, r->chain.nout, sizeof(*h), h->len - sizeof(*h), f->out + 1,
                  PIECES_MAX - 1);
    if (n < 0)
        return -EINVAL;
    return (may_block ? ops->send : ops->try_send)(f->share, f->out, 1 + (unsigned)n);
}

/* VM lock held. */
static void sent(struct fs *f, struct request *r, u32 uses, u32 opcode, int err)
{
    /* The reply was faster, and the slot may be at its next request. */
    if (r->uses != uses || r->state != SENDING)
        return;
    if (err || f->dead)
        complete_error(f, r, err ? err : -ENOTCONN);
    else if (!wants_reply(opcode))
        complete(f, r, 0);
    else if (r->chain.generation != f->v.generation) {
        virtq_drop(&f->v, r->queue, &r->chain);
        r->state = ORPHAN;
    } else {
        r->state = WAITING;
    }
}

static void send_requests(void *opaque)
{
    struct fs *f = opaque;
    struct fuse_in_header h;
    struct request *r;

    vm_lock(f->v.vm);
    while ((r = take(f)) != NULL) {
        u32 uses = r->uses;
        int err;

        f->sending = true;
        vm_unlock(f->v.vm);
        err = send(f, r, &h, true);
        vm_lock(f->v.vm);
        f->sending = false;
        sent(f, r, uses, h.opcode, err);
    }
    vm_unlock(f->v.vm);
}

/* Small requests sent from a vCPU's thread at most before the sender takes over: a guest with two
 * could go on for ever. */
#define SMALL_AT_ONCE 16

/* Sends small requests until there are no more, or a big one, or no room; VM lock held. false:
 * there may be something left for the sender. */
static bool send_small(struct fs *f)
{
    struct fuse_in_header h;
    struct request *r;

    for (unsigned i = 0; (r = take(f)) != NULL; i++) {
        u32 uses = r->uses;
        int err = -EAGAIN;

        if (r->chain.out_len <= SHAREDEV_SMALL && i < SMALL_AT_ONCE)
            err = send(f, r, &h, false);
        if (err == -EAGAIN) {
            virtq_unpop(&f->v, r->queue, &r->chain);
            r->state = FREE;
            return false;
        }
        sent(f, r, uses, h.opcode, err);
    }
    return true;
}

static void notify(struct virtio_device *v, unsigned q)
{
    struct fs *f = container_of(v, struct fs, v);

    (void)q;
    /* The sender looks for more by itself before it rests. */
    if (!f->sending && !send_small(f))
        host_workers_kick(f->sender);
}

/* --- the receiver --------------------------------------------------------------------------------
 */

/* Nothing more comes from the server; VM lock held. */
static void fail_all(struct fs *f)
{
    __atomic_store_n(&f->dead, true, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < INFLIGHT_MAX; i++) {
        struct request *r = &f->req[i];

        if (r->state == WAITING || r->state == REPLYING)
            complete_error(f, r, -ENOTCONN);
        else if (r->state == ORPHAN)
            release(f, r);
    }
}

/* The request a reply is to; its chain is the receiver's then, or nobody's (ORPHAN). VM lock held.
 * NULL: there is none. */
static struct request *find(struct fs *f, u64 unique)
{
    struct request *r = (unique & 0xff) < INFLIGHT_MAX ? &f->req[unique & 0xff] : NULL;

    if (!r || unique_of(f, r) != unique)
        return NULL;
    if (r->state == ORPHAN)
        return r;
    if (r->state != WAITING && r->state != SENDING)
        return NULL;
    r->state = REPLYING;
    return r;
}

static int receive_flat(struct fs *f, void *buf, size_t len)
{
    struct host_iov iov = {buf, len};

    return f->share->ops->receive(f->share, &iov, 1);
}

/* Takes len bytes that nobody wants. */
static int drain(struct fs *f, size_t len)
{
    int err = 0;

    while (len && !err) {
        size_t n = len < sizeof(f->scratch) ? len : sizeof(f->scratch);

        err = receive_flat(f, f->scratch, n);
        len -= n;
    }
    return err;
}

/* The rest of a reply into the chain's memory, without the lock. 1: it does not fit. */
static int receive_body(struct fs *f, struct request *r, const struct fuse_out_header *h)
{
    size_t len = h->len - sizeof(*h);
    int n;

    if (h->len > r->chain.in_len) {
        int err = drain(f, len);

        return err ? err : 1;
    }
    n = iov_slice(r->iov + r->chain.nout, r->chain.nin, sizeof(*h), len, f->in, PIECES_MAX);
    if (n < 0)
        return -EIO;
    return n ? f->share->ops->receive(f->share, f->in, (unsigned)n) : 0;
}

/* false: that is no server any more. */
static bool receive_reply(struct fs *f)
{
    struct fuse_out_header h;
    struct request *r;
    bool orphan;
    int err;

    if (receive_flat(f, &h, sizeof(h)))
        return false;
    vm_lock(f->v.vm);
    r = find(f, h.unique);
    orphan = r && r->state == ORPHAN;
    vm_unlock(f->v.vm);
    if (!r || h.len < sizeof(h) || h.len > SHAREDEV_REPLY_MAX) {
        log_error("%s: a reply that makes no sense", f->v.name);
        return false;
    }
    if (orphan)
        err = drain(f, h.len - sizeof(h));
    else
        err = receive_body(f, r, &h);
    if (err < 0)
        return false;
    vm_lock(f->v.vm);
    if (orphan) {
        release(f, r);
    } else if (err) {
        complete_error(f, r, -EIO);
    } else {
        h.unique = r->unique;
        iov_write(r->iov + r->chain.nout, r->chain.nin, 0, &h, sizeof(h));
        complete(f, r, h.len);
    }
    vm_unlock(f->v.vm);
    return true;
}

static void receive_replies(void *opaque)
{
    struct fs *f = opaque;

    while (receive_reply(f))
        continue;
    f->share->ops->shutdown(f->share);
    vm_lock(f->v.vm);
    fail_all(f);
    vm_unlock(f->v.vm);
}

/* --- the device ----------------------------------------------------------------------------------
 */

static u32 config_read(struct virtio_device *v, unsigned off, unsigned size)
{
    const struct fs *f = container_of(v, struct fs, v);
    u8 config[CONFIG_SIZE] = {[TAG_SIZE] = 1}; /* request queues */
    u32 val = 0;

    for (unsigned i = 0; i < TAG_SIZE && f->share->tag[i]; i++)
        config[i] = (u8)f->share->tag[i];
    memcpy(&val, config + off, size);
    return val;
}

/* Chains the server is at are given back at once: it may take its time. The sender and the receiver
 * give theirs back when they are done with the memory. */
static void virtio_reset(struct virtio_device *v)
{
    struct fs *f = container_of(v, struct fs, v);

    for (unsigned i = 0; i < INFLIGHT_MAX; i++)
        if (f->req[i].state == WAITING) {
            virtq_drop(v, f->req[i].queue, &f->req[i].chain);
            f->req[i].state = ORPHAN;
        }
}

static const struct virtio_ops virtio_fs_ops = {
    .config_read = config_read,
    .notify = notify,
    .reset = virtio_reset,
};

static void fs_reset(struct device *d)
{
    virtio_pci_reset(&container_of(d, struct fs, dev)->pci);
}

/* The files the guest has open are in another process, which no state tells of; a driver that has
 * not begun, or was reset, has none. */
static int fs_save(const struct device *d, struct stream *out, const char **why)
{
    const struct fs *f = container_of(d, struct fs, dev);

    if ((f->v.status & VIRTIO_STATUS_DRIVER_OK) || f->v.resetting) {
        *why = "the machine shares a directory (--share), whose open files cannot be saved";
        return -EBUSY;
    }
    stream_put_u16(out, STATE_VERSION);
    return virtio_pci_save(&f->pci, out, why);
}

static int fs_load(struct device *d, struct stream *in)
{
    struct fs *f = container_of(d, struct fs, dev);

    if (stream_get_u16(in) != STATE_VERSION || virtio_pci_load(&f->pci, in))
        return -EINVAL;
    if (f->v.status & VIRTIO_STATUS_DRIVER_OK) {
        virtio_set_status(&f->v, 0);
        return -EINVAL;
    }
    return 0;
}

static void fs_destroy(struct device *d)
{
    struct fs *f = container_of(d, struct fs, dev);

    vm_lock(f->v.vm);
    f->ending = true;
    vm_unlock(f->v.vm);
    f->share->ops->shutdown(f->share);
    if (f->receiver)
        host_thread_join(f->receiver);
    host_workers_destroy(f->sender);
    f->share->ops->close(f->share);
    host_free(f);
}

static const struct device_ops fs_ops = {
    .name = "virtio-fs",
    .reset = fs_reset,
    .save = fs_save,
    .load = fs_load,
    .destroy = fs_destroy,
};

struct device *virtio_fs_create(struct vm *vm, struct device *pci_host, u8 devfn, const char *name,
                                struct sharedev *share)
{
    struct fs *f = host_zalloc(sizeof(*f));

    if (!f) {
        share->ops->close(share);
        return NULL;
    }
    f->dev.ops = &fs_ops;
    f->share = share;
    virtio_init(&f->v, vm, &virtio_fs_ops, VIRTIO_ID_FS, name, CONFIG_SIZE);
    virtio_add_queue(&f->v, HIPRIO_SIZE);
    virtio_add_queue(&f->v, REQUESTS_SIZE);
    f->v.irqfds = true;
    if (host_workers_create(&f->sender, "fs-send", 1, send_requests, f) ||
        host_thread_create(&f->receiver, "fs-receive", receive_replies, f) ||
        virtio_pci_init(&f->pci, &f->v, pci_host, devfn, CLASS_STORAGE_OTHER)) {
        fs_destroy(&f->dev);
        return NULL;
    }
    vm_add_device(vm, &f->dev);
    return &f->dev;
}
