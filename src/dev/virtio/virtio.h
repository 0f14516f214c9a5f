/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio 1.2 devices, apart from the transport that shows them to the guest (pci.h): status and
 * feature negotiation, virtqueues (split and packed, indirect descriptors, event suppression).
 *
 * Everything here is called with the VM lock held, and the callbacks are called so. A device takes
 * chains from a queue, works on their memory with or without the lock, on whatever thread it likes,
 * and gives them back; the memory stays valid all the while. Rings and descriptors are the guest's
 * memory and may change at any time: each is read once, checked, and only the copy is used.
 *
 * What a driver must not do (a chain with a loop, an address outside RAM) makes the device
 * "broken": DEVICE_NEEDS_RESET is set, the driver is told, and the queues stand still until reset.
 */
#ifndef TRIVISOR_DEV_VIRTIO_VIRTIO_H
#define TRIVISOR_DEV_VIRTIO_VIRTIO_H

#include "core/vm.h"

#define VIRTIO_QUEUES_MAX 20
#define VIRTQ_SIZE_MAX 1024

/* Device types (virtio 1.2 5) */
#define VIRTIO_ID_NET 1
#define VIRTIO_ID_BLOCK 2
#define VIRTIO_ID_CONSOLE 3
#define VIRTIO_ID_ENTROPY 4
#define VIRTIO_ID_BALLOON 5
#define VIRTIO_ID_SOCKET 19
#define VIRTIO_ID_FS 26

/* Device status (2.1) */
#define VIRTIO_STATUS_ACKNOWLEDGE 1
#define VIRTIO_STATUS_DRIVER 2
#define VIRTIO_STATUS_DRIVER_OK 4
#define VIRTIO_STATUS_FEATURES_OK 8
#define VIRTIO_STATUS_NEEDS_RESET 64
#define VIRTIO_STATUS_FAILED 128

/* Features of every device (6); device types have theirs in bits 0 to 23. */
#define VIRTIO_F_INDIRECT_DESC BIT64(28)
#define VIRTIO_F_EVENT_IDX BIT64(29)
#define VIRTIO_F_VERSION_1 BIT64(32)
#define VIRTIO_F_RING_PACKED BIT64(34)

/* No MSI-X vector */
#define VIRTIO_NO_VECTOR 0xffff

struct virtio_device;

struct virtio_ops {
    /* Device-specific configuration (2.5). off + size is within config_size; size: 1, 2, 4. */
    u32 (*config_read)(struct virtio_device *d, unsigned off, unsigned size);
    void (*config_write)(struct virtio_device *d, unsigned off, unsigned size,
                         u32 val); /* or NULL */
    /* The driver set FEATURES_OK, d->features is what it took (a subset of what was offered).
     * false: refused. NULL: anything goes. */
    bool (*features_ok)(struct virtio_device *d);
    /* DRIVER_OK: queues may be used from here on. May be NULL. */
    void (*start)(struct virtio_device *d);
    /* The driver made buffers available in queue q. On a vCPU's thread: it must not block. */
    void (*notify)(struct virtio_device *d, unsigned q);
    /* An eventfd that does as well as notify for queue q when something is added to it, without the
     * VM lock and whether or not the queue may be used; -1: none. For a device whose notify does
     * nothing but wake a thread. NULL: none for all queues. */
    int (*doorbell)(struct virtio_device *d, unsigned q);
    /* The driver resets the device, or the machine is reset: forget what was negotiated. Chains
     * that were taken are still to be given back (virtq_push, virtq_drop), as soon as may be:
     * status reads as not yet reset until then. May be NULL. */
    void (*reset)(struct virtio_device *d);
};

/* The transport's side. */
struct virtio_transport {
    void (*queue_interrupt)(void *opaque, u16 vector);
    void (*config_interrupt)(void *opaque, u16 vector);
    /* Host memory of [addr, addr+*len), or of its first part: *len comes back as the length of
     * what lies in one piece. NULL: not the device's to access. */
    u8 *(*map)(void *opaque, u64 addr, u64 *len, bool write);
};

/* A virtqueue. Fields are the core's and the transport's. */
struct virtq {
    u16 size_max; /* what the device offers; 0: no such queue */
    u16 size;
    bool enabled;
    /* The driver enabled it before FEATURES_OK; it is then. */
    bool early;
    u16 vector;
    u64 desc, driver, device; /* guest addresses; frozen while enabled */
    /* Where desc, driver and device are in host memory; set when the queue is enabled. */
    u8 *desc_host, *driver_host, *device_host;
    u16 next_avail;             /* split: index of the next available entry; packed: position */
    u16 next_used;              /* likewise for used ones */
    bool avail_wrap, used_wrap; /* packed */
    bool holding;               /* between virtq_hold and virtq_release */
    u8 *held;                   /* packed: flags of the first chain pushed meanwhile ... */
    u16 held_flags;             /* ... and what they are to be */
    bool notify_off;            /* the device does not want notifications now */
    u32 pushed;                 /* chains pushed since the last virtq_signal */
};

struct virtio_device {
    const struct virtio_ops *ops;
    const struct virtio_transport *transport;
    void *transport_opaque;
    struct vm *vm;
    const char *name; /* "blk0": for messages */
    u16 type;         /* VIRTIO_ID_* */
    u8 status;
    u64 offered;  /* set by the device before it is shown to the guest */
    u64 features; /* negotiated */
    unsigned config_size;
    u8 config_generation;
    u16 config_vector;
    struct virtq q[VIRTIO_QUEUES_MAX];
    unsigned nqueues;
    u32 inflight;     /* chains taken and not yet given back */
    u32 generation;   /* counts resets */
    bool resetting;   /* waits for inflight to become 0 */
    bool irqfds;      /* set by a device whose interrupts are mostly sent off vCPUs' threads */
    bool no_populate; /* set by a device that is told of memory it will not access */
    u8 complaints;    /* logged so far */
};

/*
 * A descriptor chain: memory the device reads (the first nout pieces of iov), then memory it
 * writes (the following nin). iov and cap are the caller's; a chain of more pieces than cap breaks
 * the device, so cap must be what the device allows its driver to send.
 */
struct virtq_chain {
    struct host_iov *iov;
    unsigned cap;
    unsigned nout, nin;
    u64 out_len, in_len; /* bytes */
    /* the core's */
    u16 id, descs; /* packed: buffer id, descriptors it takes in the ring */
    u32 generation;
};

/* Fills in *d (zeroed storage) with nothing offered but the core's own features. */
void virtio_init(struct virtio_device *d, struct vm *vm, const struct virtio_ops *ops, u16 type,
                 const char *name, unsigned config_size);
/* Adds a queue of at most size_max entries (a power of two); its number. */
unsigned virtio_add_queue(struct virtio_device *d, u16 size_max);

static inline bool virtio_has(const struct virtio_device *d, u64 feature)
{
    return (d->features & feature) != 0;
}

/* For transports, with the features settled: enables queue n, or the device is broken. */
void virtio_enable_queue(struct virtio_device *d, unsigned n);
/* DRIVER_OK and not broken or in reset: queues may be used. */
bool virtio_live(const struct virtio_device *d);

/* Takes the next available chain of queue q. false: there is none, or the device is not live. */
bool virtq_pop(struct virtio_device *d, unsigned q, struct virtq_chain *c);
/* Undoes the last virtq_pop of q: no other chain was taken from q since, or those that were have
 * been undone. */
void virtq_unpop(struct virtio_device *d, unsigned q, const struct virtq_chain *c);
/* True when a chain is available. */
bool virtq_ready(struct virtio_device *d, unsigned q);
/* Gives c back: the device wrote the first `written` bytes of its writable memory. Harmless after
 * a reset. */
void virtq_push(struct virtio_device *d, unsigned q, const struct virtq_chain *c, u32 written);
/* Between these two, with the VM lock held all the while, the driver sees nothing of what is pushed
 * to q; then it sees all of it at once. */
void virtq_hold(struct virtio_device *d, unsigned q);
void virtq_release(struct virtio_device *d, unsigned q);
/* The device wrote to the first n bytes of c's writable memory and does not push c with them: what
 * was derived from that memory (translated code) is dropped. */
void virtq_wrote(struct virtio_device *d, const struct virtq_chain *c, u64 n);
/* Gives c back without telling the driver, who will not see it again until reset. The device may
 * have written to any of its memory. */
void virtq_drop(struct virtio_device *d, unsigned q, const struct virtq_chain *c);
/* Interrupts the driver when it wants to know what was pushed since the last call. */
void virtq_signal(struct virtio_device *d, unsigned q);
/*
 * Whether the device wants notifications from q (at first: yes). Turning them off is a hint.
 * Turning them on gives true when chains became available meanwhile: look again, no notification
 * will come for them.
 */
bool virtq_want_notify(struct virtio_device *d, unsigned q, bool on);

/* The device-specific configuration changed. */
void virtio_config_changed(struct virtio_device *d);
/* The driver broke the rules: DEVICE_NEEDS_RESET. what: for the log, once a reset. */
void virtio_broken(struct virtio_device *d, const char *what);

/* For transports. */
void virtio_set_status(struct virtio_device *d, u8 status);
u8 virtio_get_status(const struct virtio_device *d);
/* Enables queue q at the addresses in it; false: they are not the device's to use. */
bool virtq_enable(struct virtio_device *d, unsigned q);
/* Of a queue that was loaded as enabled: sets its host addresses. false: it cannot be as it is. */
bool virtq_loaded(struct virtio_device *d, unsigned q);
void virtio_notify(struct virtio_device *d, unsigned q);
/* Its state (core/device.h), which goes into that of the transport. -EBUSY: chains are taken and
 * not given back. */
int virtio_save(const struct virtio_device *d, struct stream *out);
/* 0, or -EINVAL: the device is as after a reset. The driver's notifications may be lost: when all
 * is loaded the device looks at its queues by itself. */
int virtio_load(struct virtio_device *d, struct stream *in);

/* --- for devices: copies between chains and flat memory ------------------------------------------
 */

/* Copies up to len bytes from (to) the pieces, beginning off bytes into them. Bytes copied. */
size_t iov_read(const struct host_iov *iov, unsigned n, size_t off, void *buf, size_t len);
size_t iov_write(const struct host_iov *iov, unsigned n, size_t off, const void *buf, size_t len);
/* Pieces of [off, off+len) of iov into out (cap pieces); how many, or -1: they do not fit or are
 * not there. */
int iov_slice(const struct host_iov *iov, unsigned n, size_t off, size_t len, struct host_iov *out,
              unsigned cap);

#endif
