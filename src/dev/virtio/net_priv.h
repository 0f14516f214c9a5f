/* SPDX-License-Identifier: Apache-2.0 */
/* Between net.c (the device), net_control.c (the control queue) and net_queue.c (frames). */
#ifndef TRIVISOR_DEV_VIRTIO_NET_PRIV_H
#define TRIVISOR_DEV_VIRTIO_NET_PRIV_H

#include "core/backend.h"
#include "dev/virtio/net.h"
#include "dev/virtio/pci.h"

/* Features (5.1.3) */
#define NET_F_CSUM BIT64(0)
#define NET_F_GUEST_CSUM BIT64(1)
#define NET_F_CTRL_GUEST_OFFLOADS BIT64(2)
#define NET_F_MTU BIT64(3)
#define NET_F_MAC BIT64(5)
#define NET_F_GUEST_TSO4 BIT64(7)
#define NET_F_GUEST_TSO6 BIT64(8)
#define NET_F_GUEST_ECN BIT64(9)
#define NET_F_GUEST_UFO BIT64(10)
#define NET_F_HOST_TSO4 BIT64(11)
#define NET_F_HOST_TSO6 BIT64(12)
#define NET_F_HOST_ECN BIT64(13)
#define NET_F_HOST_UFO BIT64(14)
#define NET_F_MRG_RXBUF BIT64(15)
#define NET_F_STATUS BIT64(16)
#define NET_F_CTRL_VQ BIT64(17)
#define NET_F_CTRL_RX BIT64(18)
#define NET_F_MQ BIT64(22)
#define NET_F_CTRL_MAC_ADDR BIT64(23)

/* Frame header (5.1.6) */
struct net_header {
    u8 flags;
    u8 gso_type;
    u16 hdr_len, gso_size;
    u16 csum_start, csum_offset;
    u16 num_buffers;
};
_Static_assert(sizeof(struct net_header) == NETDEV_HDR_SIZE, "5.1.6");

#define NET_QUEUE_SIZE 256
#define NET_CONTROL_SIZE 64
/* A chain is no longer than its queue (2.6.5.3.1), plus a buffer that lies in two pieces of RAM. */
#define NET_CHAIN_MAX (NET_QUEUE_SIZE + 2)
#define NET_CHAINS 256

/* Chains taken from a queue and not yet given back, in order. */
struct net_pool {
    struct virtq_chain chain[NET_CHAINS];
    struct host_iov iov[HOST_IOV_MAX]; /* the chains' own, one behind the other */
    unsigned first, n;                 /* chains */
    unsigned iov_end;
    u64 in_len;     /* bytes of all that the device writes */
    bool abandoned; /* the device was reset while the loop was busy with the memory */
};

/* A receive queue and a transmit queue. */
struct net_pair {
    struct net *net;
    unsigned index;
    struct host_bh work;
    struct net_pool rx, tx; /* VM lock; the memory they name: also without it while busy */
    bool rx_busy, tx_busy;  /* somebody works on the pool's memory; VM lock */
    bool stale;             /* the device was reset: `held` is of before; VM lock */
    bool tx_blocked;        /* the network takes nothing now; VM lock */
    bool tx_again;          /* the loop found a vCPU sending, which is to tell it; VM lock */
    u32 held;               /* bytes of a received frame that waits for buffers; the loop's */
    u8 frame[NETDEV_HDR_SIZE + NETDEV_FRAME_MAX]; /* that frame */
};

struct net {
    struct device dev;
    struct virtio_device virtio;
    struct virtio_pci pci;
    struct netdev *backend;
    struct host_bh control;
    u8 mac[6], own_mac[6]; /* what the guest set; what it has at reset */
    bool link_up;
    bool link_moved; /* between load and loaded: it is not as the guest knows it */
    unsigned npairs;
    unsigned control_queue;
    /* VM lock: what the driver wants. */
    u32 offloads; /* NETDEV_*, of received frames */
    unsigned pairs_used;
    /* The loop's: what the network was told. */
    u32 told_offloads;
    unsigned told_pairs;
    struct net_pair pair[VIRTIO_NET_PAIRS_MAX];
};

#define NET_F_GUEST_ALL                                                                            \
    (NET_F_GUEST_CSUM | NET_F_GUEST_TSO4 | NET_F_GUEST_TSO6 | NET_F_GUEST_ECN | NET_F_GUEST_UFO)

/* Pairs of queues the driver can know of (5.1.2). */
static inline unsigned net_pairs(const struct net *n)
{
    return virtio_has(&n->virtio, NET_F_MQ) ? n->npairs : 1;
}

/* Which NETDEV_* the negotiated GUEST_* features (or those of a command) are. */
u32 net_guest_offloads(u64 features);

/* net_queue.c */
void net_pair_init(struct net_pair *p, struct net *n, unsigned index);
/* The driver notified the transmit queue. On a vCPU's thread, VM lock held, but maybe not all the
 * while. */
void net_pair_notify_tx(struct net_pair *p);
/* The device is reset; VM lock held. */
void net_pair_reset(struct net_pair *p);
/* Puts back what was taken from the queues, until the event loop goes on. Nobody works on it; VM
 * lock held. */
void net_pair_rest(struct net_pair *p);

/* net_control.c: the control queue's work, and telling the network what the driver wants. Event
 * loop. */
void net_control_work(void *net);

/* net_state.c: of struct device_ops. */
void net_drain(struct device *dev);
int net_save(const struct device *dev, struct stream *out, const char **why);
int net_load(struct device *dev, struct stream *in);
void net_loaded(struct device *dev);

#endif
