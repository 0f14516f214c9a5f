/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backend seam: what devices plug into. A backend knows files, sockets and processes; a device
 * knows none of them.
 */
#ifndef TRIVISOR_CORE_BACKEND_H
#define TRIVISOR_CORE_BACKEND_H

#include "base/bits.h"
#include "core/host.h"

/* A byte stream with a person or a file at the other end (src/backend/char). */
struct chardev {
    /* Sends up to n bytes; returns how many were taken. When it is fewer, the rest is the device's
     * to keep until on_writable; without on_writable it is lost. VM lock held. */
    size_t (*write)(struct chardev *c, const u8 *buf, size_t n);
    /* The device has room again: deliver held-back input. May be NULL. VM lock held. */
    void (*kick_input)(struct chardev *c);
    /* Opens what is outside of this process: a file is made or overwritten, a socket listens. Once,
     * on the main thread, when all else of the machine is ready; what is written earlier waits, or
     * is lost. dry: only looks whether it would work. NULL: there is nothing to open. 0, or -errno
     * with one line in err. */
    int (*start)(struct chardev *c, bool dry, char *err, size_t err_size);
    void (*close)(struct chardev *c);
    /* Set by the device: input arrived; returns how many bytes were taken, the rest is offered
     * again after kick_input. Called with the VM lock held. */
    size_t (*on_input)(void *dev, const u8 *buf, size_t n);
    /* Set by the device, may be NULL: the other end's window has this many columns and rows now
     * (0: unknown). VM lock held. */
    void (*on_resize)(void *dev, u16 cols, u16 rows);
    /* Set by the device, may be NULL: there is room again after a write that took fewer bytes than
     * there were. VM lock held, never from within write. */
    void (*on_writable)(void *dev);
    /* Set by the device, may be NULL: somebody is at the other end now, or nobody any more. VM lock
     * held. */
    void (*on_open)(void *dev, bool open);
    void *dev;
    u16 cols, rows; /* the last known size; 0: unknown */
    bool holds;     /* nothing may be lost: also devices that could do without set on_writable */
    bool closed;    /* nobody is at the other end, and what is written is lost */
};

/*
 * A disk (src/backend/block). The calls block, take offsets and lengths in bytes (multiples of
 * 512, within size: callers check), may come from several threads at once, and are never made on a
 * vCPU's thread, with the VM lock held or on the event loop (but for the flush of a drain, which is
 * to wait). They move everything or fail: 0 or
 * -errno (-ENOSPC: the host's disk is full, -EIO: anything the guest can only see as an error).
 * Overlapping requests in flight have no order among each other.
 */
struct blockdev {
    const struct blockdev_ops *ops;
    u64 size; /* bytes, a multiple of 512 */
    bool readonly;
    bool can_discard; /* discard gives space back */
};

/* Tells whether a disk was written to: a change of its contents from outside changes it. */
struct block_stamp {
    /* Of the image file; of one with backing files numbers that follow from those of all. */
    u64 size, changed_ns;
    bool device; /* one of them is a block device, and they say nothing */
};

struct blockdev_ops {
    int (*readv)(struct blockdev *b, const struct host_iov *iov, unsigned n, u64 off);
    int (*writev)(struct blockdev *b, const struct host_iov *iov, unsigned n, u64 off);
    /* All writes that were acknowledged before the call survive a crash of this process and of the
     * host. */
    int (*flush)(struct blockdev *b);
    /* [off, off+len) is of no interest any more: it reads as anything, here as zeroes or as before.
     */
    int (*discard)(struct blockdev *b, u64 off, u64 len);
    /* [off, off+len) reads as zeroes; unmap: its space may be given back. */
    int (*write_zeroes)(struct blockdev *b, u64 off, u64 len, bool unmap);
    /* On the event loop too. */
    int (*stamp)(struct blockdev *b, struct block_stamp *s);
    /* Flushes and frees. Nothing is in flight. */
    void (*close)(struct blockdev *b);
};

/*
 * A network (src/backend/net). A frame on either side is a virtio_net_hdr_v1 of 12 bytes (virtio
 * 1.2 5.1.6: num_buffers is set by the receiving device) and an Ethernet frame, with what
 * segmentation and checksum offloads leave in it. All calls on the event loop, VM lock not held,
 * but for send.
 */
#define NETDEV_HDR_SIZE 12
#define NETDEV_FRAME_MAX (65536 + 18) /* header not counted */

/* What may be left to the receiver of a frame. The values of TUN_F_* (linux/if_tun.h). */
#define NETDEV_CSUM BIT32(0)
#define NETDEV_TSO4 BIT32(1)
#define NETDEV_TSO6 BIT32(2)
#define NETDEV_TSO_ECN BIT32(3)
#define NETDEV_UFO BIT32(4)

struct netdev {
    const struct netdev_ops *ops;
    u32 offloads; /* NETDEV_*: what it can take from the guest, and give when set_offloads allows */
    unsigned queues; /* pairs it can serve at once; queue numbers below are less */
    u16 mtu;         /* 0: says nothing about it */
    /* Set by the device. A frame may be had: call receive until it gives -EAGAIN. */
    void (*on_readable)(void *dev, unsigned queue);
    /* Set by the device. After want_writable: try to send again. */
    void (*on_writable)(void *dev, unsigned queue);
    /* Set by the device, may be NULL: the link went up or down. */
    void (*on_link)(void *dev, bool up);
    void *dev;
};

struct netdev_ops {
    /* Takes one frame, header first. 0; -EAGAIN: not now; other -errno: the frame is dropped. On
     * any thread, one call a queue at a time; it does not block. */
    int (*send)(struct netdev *n, unsigned queue, const struct host_iov *iov, unsigned niov);
    /* After send gave -EAGAIN: on_writable is wanted, once. */
    void (*want_writable)(struct netdev *n, unsigned queue);
    /* Puts one frame, header first, into iov. Its length; -EAGAIN: none there, on_readable follows;
     * -EMSGSIZE: it did not fit and was dropped; other -errno: the network is gone. */
    s64 (*receive)(struct netdev *n, unsigned queue, const struct host_iov *iov, unsigned niov);
    /* Whether on_readable is wanted: a device without buffers turns it off. On at first: no. */
    void (*want_readable)(struct netdev *n, unsigned queue, bool on);
    /* What the guest accepts in received frames: NETDEV_*, a subset of offloads. */
    void (*set_offloads)(struct netdev *n, u32 offloads);
    /* How many queue pairs are in use now: 1 at first. */
    void (*set_queues)(struct netdev *n, unsigned queues);
    void (*close)(struct netdev *n);
};

/*
 * A shared directory (src/backend/share): a server of FUSE requests (linux/fuse.h), which comes to
 * them in its own process and checks them itself. Requests go out and replies come in as streams of
 * whole messages, each beginning with its length; replies come in any order.
 */
#define SHAREDEV_DATA_MAX (1u << 20)                       /* what one READ or WRITE moves */
#define SHAREDEV_REQUEST_MAX (40 + 40 + SHAREDEV_DATA_MAX) /* fuse_in_header, fuse_write_in */
#define SHAREDEV_REPLY_MAX (16 + SHAREDEV_DATA_MAX)        /* fuse_out_header */

#define SHAREDEV_SMALL 4096u

struct sharedev {
    const struct sharedev_ops *ops;
    const char *tag; /* what the guest calls it: 1 to 36 bytes */
};

struct sharedev_ops {
    /* Sends one request, which is read once. One thread at a time; blocks. 0, or -ENOTCONN: there
     * is no server any more. */
    int (*send)(struct sharedev *s, const struct host_iov *iov, unsigned n);
    /* As send, of at most SHAREDEV_SMALL bytes and without blocking: -EAGAIN, and nothing was sent.
     */
    int (*try_send)(struct sharedev *s, const struct host_iov *iov, unsigned n);
    /* Fills iov from the stream of replies, likewise, apart from send. */
    int (*receive)(struct sharedev *s, const struct host_iov *iov, unsigned n);
    /* Calls of the two that are in progress, and all further ones, give -ENOTCONN. Any thread. */
    void (*shutdown)(struct sharedev *s);
    /* Nobody is in a call. */
    void (*close)(struct sharedev *s);
};

/*
 * Programs on the host that talk with the guest over stream sockets (src/backend/vsock). A stream
 * joins one of them with the device. All calls and callbacks on the event loop, VM lock not held;
 * no callback comes from within a call.
 */
enum {
    SOCKSTREAM_CONNECTED = 1, /* of a connect: somebody is there */
    SOCKSTREAM_REFUSED = 2,   /* of a connect: nobody is; the device closes it */
    SOCKSTREAM_READABLE = 4,  /* receive will not give -EAGAIN */
    SOCKSTREAM_WRITABLE = 8,  /* send will not, or will fail for good */
};

struct sockstream {
    /* Set by the device: SOCKSTREAM_* have happened. It may close the stream. */
    void (*on_event)(void *opaque, unsigned events);
    void *opaque;
};

struct sockdev {
    const struct sockdev_ops *ops;
    u32 cid; /* the guest's address */
    /* Set by the device. Somebody wants to talk to the guest's port: s is the device's from here
     * on. false: not now, and it is not. */
    bool (*on_request)(void *dev, struct sockstream *s, u32 port);
    void *dev;
};

struct sockdev_ops {
    /* Programs of the host can connect from here on. As a chardev's start. */
    int (*start)(struct sockdev *d, bool dry, char *err, size_t err_size);
    /* To whoever serves the host's port: a stream that is not connected yet. NULL: it cannot be
     * tried. */
    struct sockstream *(*connect)(struct sockdev *d, u32 port);
    /* The guest has taken on_request's stream, which is its host's port `port`. */
    void (*accepted)(struct sockstream *s, u32 port);
    /* Bytes; 0: no more will come; -EAGAIN; other -errno: it is broken. */
    s64 (*receive)(struct sockstream *s, const struct host_iov *iov, unsigned n);
    s64 (*send)(struct sockstream *s, const struct host_iov *iov, unsigned n);
    /* Whether receive has given 0 since the other end is closed altogether, rather than for
     * sending alone. */
    bool (*hung_up)(struct sockstream *s);
    /* Nothing will be received, or sent, any more: the other end sees it. */
    void (*shutdown)(struct sockstream *s, bool receive, bool send);
    /* What on_event is wanted for; at first nothing. */
    void (*watch)(struct sockstream *s, bool readable, bool writable);
    void (*close_stream)(struct sockstream *s);
    /* No stream is left. */
    void (*close)(struct sockdev *d);
};

#endif
