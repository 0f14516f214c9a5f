/* SPDX-License-Identifier: Apache-2.0 */
/* Between vsock.c (the device and its queues) and vsock_conn.c (connections). */
#ifndef TRIVISOR_DEV_VIRTIO_VSOCK_PRIV_H
#define TRIVISOR_DEV_VIRTIO_VSOCK_PRIV_H

#include "core/backend.h"
#include "dev/virtio/pci.h"

/* All there are at once, of either side's making; and bytes of each that the host's program has not
 * taken: what the guest is told it may send ahead (buf_alloc). */
#define VSOCK_CONNS_MAX 256u
#define VSOCK_BUFFER 65536u
/* Answers to packets that belong to no connection, while the guest has no buffers for them. */
#define VSOCK_REPLIES_MAX 64u

#define VSOCK_CID_HOST 2

/* 5.10.6 */
struct vsock_header {
    u64 src_cid, dst_cid;
    u32 src_port, dst_port;
    u32 len;
    u16 type, op;
    u32 flags, buf_alloc, fwd_cnt;
} __attribute__((packed));
_Static_assert(sizeof(struct vsock_header) == 44, "5.10.6");

#define VSOCK_TYPE_STREAM 1

enum {
    VSOCK_OP_REQUEST = 1,
    VSOCK_OP_RESPONSE = 2,
    VSOCK_OP_RST = 3,
    VSOCK_OP_SHUTDOWN = 4,
    VSOCK_OP_RW = 5,
    VSOCK_OP_CREDIT_UPDATE = 6,
    VSOCK_OP_CREDIT_REQUEST = 7,
};

/* Flags of VSOCK_OP_SHUTDOWN (5.10.6.6.2): whoever says it will not ... any more. */
#define VSOCK_NO_RECEIVE 1u
#define VSOCK_NO_SEND 2u
#define VSOCK_BOTH (VSOCK_NO_RECEIVE | VSOCK_NO_SEND)

enum vsock_state {
    VSOCK_FREE,
    VSOCK_CONNECTING, /* the guest asked; the host's answer is awaited */
    VSOCK_REQUESTED,  /* the host asked; the guest's answer is awaited */
    VSOCK_OPEN,
    VSOCK_RESETTING, /* over, but the guest does not know yet */
    VSOCK_LEAVING,   /* over for the guest; the host's program gets what is left */
};

struct vsock_conn {
    struct vsock *v;
    struct vsock_conn *next_ready;
    struct sockstream *s; /* NULL: the host's end is closed */
    enum vsock_state state;
    u32 guest_port, host_port;
    u32 due;           /* packets to send: bits of VSOCK_OP_* */
    u8 guest_shutdown; /* VSOCK_NO_*: what the guest said */
    u8 host_shutdown;  /* what it was told, or is with what is due */
    bool ready;        /* in the list of those that may have a packet for the guest */
    bool readable;     /* the stream may have something */
    bool told_end;     /* the stream knows that the guest sends no more */
    bool credit_asked; /* and not heard of since */
    /* From the guest: bytes that came, of which `fill` from `head` on wait in the ring (NULL: none
     * did yet), and what it was last told of those that went (fwd_cnt). All modulo 2^32. */
    u32 received, told;
    u8 *ring;
    u32 head, fill;
    /* To the guest: bytes sent, and what it said (5.10.6.3). */
    u32 sent, buf_alloc, fwd_cnt;
};

struct vsock_reply {
    u64 cid; /* whom the guest took for the sender */
    u32 guest_port, host_port;
};

/*
 * Connections are the event loop's alone, no lock needed. The VM lock guards the virtio device,
 * `stale` and `moved`.
 */
struct vsock {
    struct device dev;
    struct virtio_device virtio;
    struct virtio_pci pci;
    struct sockdev *sock;
    struct host_bh work;
    bool working; /* within work, which looks at everything by itself */
    bool starved; /* the guest has no buffers: it says when it has */
    bool stale;   /* the device was reset: the connections are another driver's */
    bool moved;   /* the guest is to hear that its connections are gone; VM lock */
    struct vsock_conn conn[VSOCK_CONNS_MAX];
    struct vsock_conn *ready, **last_ready;
    struct vsock_reply reply[VSOCK_REPLIES_MAX];
    unsigned nreplies;
    u32 next_port; /* for streams of the host's making */
};

/* Wants the queues looked at soon. Event loop. */
void vsock_wake(struct vsock *v);

/* A packet of the guest's: h is a copy of its header, and from `off` on the pieces hold h->len
 * bytes of payload (checked). There is room for one more reply. */
void vsock_packet(struct vsock *v, const struct vsock_header *h, const struct host_iov *iov,
                  unsigned n, size_t off);
/*
 * The next packet for the guest: fills in *h and puts payload, as far as there is some, into the
 * pieces from `off` on, room bytes at most. false: there is none.
 */
bool vsock_next(struct vsock *v, struct vsock_header *h, const struct host_iov *iov, unsigned n,
                size_t off, size_t room);
/* Whether vsock_next may have one. */
bool vsock_pending(const struct vsock *v);
/* sockdev.on_request, for a device that is live. */
bool vsock_request(struct vsock *v, struct sockstream *s, u32 port);
/* Ends all connections; nothing is told to the guest. */
void vsock_close_all(struct vsock *v);

#endif
