/* SPDX-License-Identifier: Apache-2.0 */
/* Frames between the rings and the network. */
#include <errno.h>
#include <string.h>

#include "dev/virtio/net_priv.h"

/* Frames a turn of the event loop: others want it too. */
#define TURN 64
#define TX_BATCH 32
/* Frames a vCPU's thread sends itself, and their size. */
#define DIRECT 4
#define DIRECT_BYTES 2048
#define FULL (NETDEV_HDR_SIZE + NETDEV_FRAME_MAX)
#define ETH_HEADER 14

/* Header flags and types (5.1.6) */
#define NEEDS_CSUM 1
#define DATA_VALID 2
#define GSO_NONE 0
#define GSO_TCPV4 1
#define GSO_UDP 3
#define GSO_TCPV6 4
#define GSO_ECN 0x80

static unsigned rx_queue(const struct net_pair *p)
{
    return 2 * p->index;
}

static unsigned tx_queue(const struct net_pair *p)
{
    return 2 * p->index + 1;
}

/* --- pools ---------------------------------------------------------------------------------------
 */

static void pool_compact(struct net_pool *pool)
{
    struct host_iov *from = pool->n ? pool->chain[pool->first].iov : pool->iov;
    unsigned gone = (unsigned)(from - pool->iov);

    memmove(pool->iov, from, (pool->iov_end - gone) * sizeof(*from));
    memmove(pool->chain, pool->chain + pool->first, pool->n * sizeof(pool->chain[0]));
    for (unsigned i = 0; i < pool->n; i++)
        pool->chain[i].iov -= gone;
    pool->iov_end -= gone;
    pool->first = 0;
}

static bool pool_full(const struct net_pool *pool)
{
    return pool->first + pool->n == NET_CHAINS || pool->iov_end + NET_CHAIN_MAX >= HOST_IOV_MAX;
}

/* Takes the next chain of queue q. */
static bool pool_take(struct net_pair *p, struct net_pool *pool, unsigned q)
{
    struct virtq_chain *c;

    if (!pool->n)
        pool->first = pool->iov_end = 0;
    if (pool_full(pool) && pool->first)
        pool_compact(pool);
    if (pool_full(pool))
        return false;
    c = &pool->chain[pool->first + pool->n];
    c->iov = &pool->iov[pool->iov_end];
    c->cap = NET_CHAIN_MAX;
    if (!virtq_pop(&p->net->virtio, q, c))
        return false;
    pool->n++;
    pool->iov_end += c->nout + c->nin;
    pool->in_len += c->in_len;
    return true;
}

/* Gives the first chain back. */
static void pool_push(struct net_pair *p, struct net_pool *pool, unsigned q, u32 written)
{
    struct virtq_chain *c = &pool->chain[pool->first];

    pool->first++;
    pool->n--;
    pool->in_len -= c->in_len;
    virtq_push(&p->net->virtio, q, c, written);
}

static void pool_drop(struct net_pair *p, struct net_pool *pool, unsigned q)
{
    for (unsigned i = 0; i < pool->n; i++)
        virtq_drop(&p->net->virtio, q, &pool->chain[pool->first + i]);
    pool->n = 0;
    pool->in_len = 0;
    pool->abandoned = false;
}

static void pool_unpop(struct net_pair *p, struct net_pool *pool, unsigned q)
{
    while (pool->n)
        virtq_unpop(&p->net->virtio, q, &pool->chain[pool->first + --pool->n]);
    pool->in_len = 0;
}

/* After work without the lock: false when the device was reset meanwhile. */
static bool still_ours(struct net_pair *p, struct net_pool *pool, unsigned q)
{
    if (!pool->abandoned)
        return true;
    pool_drop(p, pool, q);
    return false;
}

void net_pair_reset(struct net_pair *p)
{
    p->stale = true;
    p->tx_blocked = false;
    if (p->rx_busy)
        p->rx.abandoned = true;
    else
        pool_drop(p, &p->rx, rx_queue(p));
    if (p->tx_busy)
        p->tx.abandoned = true;
    else
        pool_drop(p, &p->tx, tx_queue(p));
}

void net_pair_rest(struct net_pair *p)
{
    pool_unpop(p, &p->rx, rx_queue(p));
    pool_unpop(p, &p->tx, tx_queue(p));
    host_bh_schedule(&p->work);
}

/* The driver may use this pair's queues now. */
static bool usable(const struct net_pair *p)
{
    return virtio_live(&p->net->virtio) && p->index < net_pairs(p->net);
}

/* --- from the guest ------------------------------------------------------------------------------
 */

static bool has(u64 features, u64 f)
{
    return (features & f) != 0;
}

/* 5.1.6.2: only what was negotiated, and only numbers that make sense. */
static bool header_ok(struct net_header *h, u64 features, u64 len)
{
    u8 type = h->gso_type & (u8)~GSO_ECN;

    if (len < ETH_HEADER || len > NETDEV_FRAME_MAX)
        return false;
    if ((h->gso_type & GSO_ECN) && !has(features, NET_F_HOST_ECN))
        return false;
    if ((type == GSO_TCPV4 && !has(features, NET_F_HOST_TSO4)) ||
        (type == GSO_TCPV6 && !has(features, NET_F_HOST_TSO6)) ||
        (type == GSO_UDP && !has(features, NET_F_HOST_UFO)))
        return false;
    if (type != GSO_NONE && type != GSO_TCPV4 && type != GSO_TCPV6 && type != GSO_UDP)
        return false;
    h->flags &= NEEDS_CSUM;
    h->num_buffers = 0;
    if (!h->flags)
        return type == GSO_NONE;
    return has(features, NET_F_CSUM) && (u32)h->csum_start + h->csum_offset + 2 <= len &&
           (type == GSO_NONE || h->gso_size);
}

/* 0: the chain is done with, sent or not; -EAGAIN: not now. The header is read once, and only the
 * copy is used. */
static int send_chain(struct net_pair *p, const struct virtq_chain *c, u64 features)
{
    struct netdev *b = p->net->backend;
    struct host_iov iov[NET_CHAIN_MAX + 1];
    struct net_header h;
    int n;

    if (iov_read(c->iov, c->nout, 0, &h, sizeof(h)) != sizeof(h) ||
        !header_ok(&h, features, c->out_len - sizeof(h)))
        return 0;
    iov[0] = (struct host_iov){&h, sizeof(h)};
    n = iov_slice(c->iov, c->nout, sizeof(h), c->out_len - sizeof(h), iov + 1, NET_CHAIN_MAX);
    if (n < 0)
        return 0;
    return b->ops->send(b, p->index, iov, (unsigned)n + 1) == -EAGAIN ? -EAGAIN : 0;
}

/* Sends what is in the pool. VM lock held, but not while it sends. false: the device was reset. */
static bool send_pool(struct net_pair *p)
{
    struct virtio_device *d = &p->net->virtio;
    struct net_pool *pool = &p->tx;
    u64 features = d->features;
    unsigned sent = 0;

    p->tx_busy = true;
    vm_unlock(d->vm);
    while (sent < pool->n && send_chain(p, &pool->chain[pool->first + sent], features) != -EAGAIN)
        sent++;
    vm_lock(d->vm);
    p->tx_busy = false;
    if (!still_ours(p, pool, tx_queue(p)))
        return false;
    p->tx_blocked = sent < pool->n;
    while (sent--)
        pool_push(p, pool, tx_queue(p), 0);
    return true;
}

/* Event loop. true: there is more. */
static bool transmit(struct net_pair *p)
{
    struct virtio_device *d = &p->net->virtio;
    unsigned q = tx_queue(p);
    bool more = false, blocked;

    vm_lock(d->vm);
    p->tx_again = p->tx_busy;
    if (usable(p) && !p->tx_busy)
        virtq_want_notify(d, q, false);
    for (unsigned turn = 0; usable(p) && !p->tx_busy; turn++) {
        if (turn == TURN / TX_BATCH) {
            more = true;
            break;
        }
        while (p->tx.n < TX_BATCH && pool_take(p, &p->tx, q))
            ;
        if (!p->tx.n) {
            if (!virtq_want_notify(d, q, true))
                break;
            virtq_want_notify(d, q, false);
        } else if (!send_pool(p) || p->tx_blocked) {
            break;
        }
    }
    virtq_signal(d, q);
    blocked = p->tx_blocked && p->tx.n && usable(p);
    vm_unlock(d->vm);
    if (blocked)
        p->net->backend->ops->want_writable(p->net->backend, p->index);
    return more;
}

/*
 * A few small frames are sent right here: handing them to the loop's thread costs more than sending
 * them, and what they acknowledge or ask for waits. Big ones, and what comes while somebody else
 * sends or the network is full, are the loop's.
 */
void net_pair_notify_tx(struct net_pair *p)
{
    struct virtio_device *d = &p->net->virtio;
    unsigned q = tx_queue(p);

    if (p->tx_busy || p->tx_blocked || p->tx.n) {
        host_bh_schedule(&p->work);
        return;
    }
    virtq_want_notify(d, q, false);
    for (unsigned i = 0; i < DIRECT && pool_take(p, &p->tx, q); i++)
        if (p->tx.chain[p->tx.first + i].out_len > DIRECT_BYTES) {
            host_bh_schedule(&p->work);
            return;
        }
    if (p->tx.n && !send_pool(p))
        return;
    virtq_signal(d, q);
    if (p->tx_again || p->tx_blocked || virtq_want_notify(d, q, true))
        host_bh_schedule(&p->work);
    p->tx_again = false;
}

/* --- to the guest --------------------------------------------------------------------------------
 */

static bool mergeable(const struct net_pair *p)
{
    return virtio_has(&p->net->virtio, NET_F_MRG_RXBUF);
}

/* Takes buffers for a frame of any size, as far as there are any. */
static bool fill(struct net_pair *p)
{
    struct virtio_device *d = &p->net->virtio;
    u64 wanted = mergeable(p) ? FULL : 1;

    while (p->rx.in_len < wanted && pool_take(p, &p->rx, rx_queue(p))) {
        const struct virtq_chain *c = &p->rx.chain[p->rx.first + p->rx.n - 1];

        if (c->nout || c->in_len < NETDEV_HDR_SIZE)
            virtio_broken(d, "a receive buffer that has no room for a header");
    }
    return p->rx.n && virtio_live(d);
}

/* Something is in the pool's memory that is not delivered. */
static void abandon_frame(struct net_pair *p)
{
    const struct net_pool *pool = &p->rx;

    for (unsigned i = 0; i < pool->n; i++)
        virtq_wrote(&p->net->virtio, &pool->chain[pool->first + i],
                    pool->chain[pool->first + i].in_len);
}

/* What the driver did not ask for must not be in a header; what it did not ask for and cannot be
 * left out makes the frame unfit for it. */
static bool fit_header(struct net_header *h, u32 offloads)
{
    u8 type = h->gso_type & (u8)~GSO_ECN;

    if (!(offloads & NETDEV_CSUM)) {
        if (h->flags & NEEDS_CSUM)
            return false;
        h->flags = 0;
    }
    if ((h->gso_type & GSO_ECN) && !(offloads & NETDEV_TSO_ECN))
        return false;
    switch (type) {
    case GSO_NONE:
        return true;
    case GSO_TCPV4:
        return offloads & NETDEV_TSO4;
    case GSO_TCPV6:
        return offloads & NETDEV_TSO6;
    case GSO_UDP:
        return offloads & NETDEV_UFO;
    default:
        return false;
    }
}

/* A frame of len bytes, header first, lies in the pool's memory: to the driver with it, in as many
 * chains as it takes. */
static void deliver(struct net_pair *p, u32 len)
{
    struct net_pool *pool = &p->rx;
    const struct host_iov *iov = pool->chain[pool->first].iov;
    unsigned n = (unsigned)(pool->iov + pool->iov_end - iov), buffers = 0;
    struct net_header h;

    if (len < sizeof(h) + ETH_HEADER || iov_read(iov, n, 0, &h, sizeof(h)) != sizeof(h) ||
        !fit_header(&h, p->net->offloads)) {
        abandon_frame(p);
        return;
    }
    for (u64 room = 0; room < len && buffers < pool->n; buffers++)
        room += pool->chain[pool->first + buffers].in_len;
    h.num_buffers = (u16)buffers;
    iov_write(iov, n, 0, &h, sizeof(h));
    /* A driver that sees the first one looks for the others at once (5.1.6.3.1). */
    virtq_hold(&p->net->virtio, rx_queue(p));
    while (buffers--) {
        u64 room = pool->chain[pool->first].in_len;
        u32 part = room < len ? (u32)room : len;

        pool_push(p, pool, rx_queue(p), part);
        len -= part;
    }
    virtq_release(&p->net->virtio, rx_queue(p));
}

/*
 * Gets one frame: straight into guest memory when any frame fits there, else by way of p->frame.
 * The VM lock is held, but not while it receives. The frame's length; 0: none that can be
 * delivered; -EAGAIN: there is none; -ENOBUFS: it waits for more buffers.
 */
static s64 receive(struct net_pair *p)
{
    struct net *n = p->net;
    struct netdev *b = n->backend;
    struct net_pool *pool = &p->rx;
    struct host_iov *iov = pool->chain[pool->first].iov, bounce = {p->frame, sizeof(p->frame)};
    unsigned niov = (unsigned)(pool->iov + pool->iov_end - iov);
    u64 room = pool->in_len;
    bool direct = room >= FULL, full = pool_full(pool);
    s64 r = 0;

    if (!mergeable(p)) {
        niov = pool->chain[pool->first].nin;
        room = pool->chain[pool->first].in_len;
        direct = full = true;
    }
    p->rx_busy = true;
    vm_unlock(n->virtio.vm);
    if (!p->held && direct) {
        r = b->ops->receive(b, p->index, iov, niov);
    } else {
        if (!p->held) {
            r = b->ops->receive(b, p->index, &bounce, 1);
            p->held = r > 0 ? (u32)r : 0;
        }
        if (p->held && p->held <= room) {
            r = (s64)iov_write(iov, niov, 0, p->frame, p->held);
            p->held = 0;
        } else if (p->held) {
            r = full ? 0 : -ENOBUFS;
            p->held = full ? 0 : p->held;
        }
    }
    vm_lock(n->virtio.vm);
    p->rx_busy = false;
    return r == -EMSGSIZE ? 0 : r;
}

/* true: there may be more. *wait: the network is to say when. */
static bool receive_frames(struct net_pair *p, bool *wait)
{
    struct virtio_device *d = &p->net->virtio;
    unsigned q = rx_queue(p);

    virtq_want_notify(d, q, false);
    for (unsigned i = 0; i < TURN; i++) {
        s64 r = fill(p) ? receive(p) : -ENOBUFS;

        if (!still_ours(p, &p->rx, q))
            return false;
        if (r == 0 || (r > 0 && !usable(p)))
            abandon_frame(p);
        if (!usable(p))
            return false;
        if (r > 0) {
            deliver(p, (u32)r);
        } else if (r == -ENOBUFS) {
            if (!virtq_want_notify(d, q, true))
                return false;
            virtq_want_notify(d, q, false);
        } else if (r < 0) {
            *wait = r == -EAGAIN;
            return false;
        }
    }
    return true;
}

static bool receive_turn(struct net_pair *p)
{
    struct net *n = p->net;
    bool more = false, wait = false;

    vm_lock(n->virtio.vm);
    if (p->stale)
        p->held = 0;
    p->stale = false;
    if (usable(p)) {
        more = receive_frames(p, &wait);
        virtq_signal(&n->virtio, rx_queue(p));
    }
    vm_unlock(n->virtio.vm);
    n->backend->ops->want_readable(n->backend, p->index, wait);
    return more;
}

/* --- on the event loop ---------------------------------------------------------------------------
 */

static void work(void *opaque)
{
    struct net_pair *p = opaque;
    bool more = transmit(p);

    more |= receive_turn(p);
    if (more)
        host_bh_schedule(&p->work);
}

static void on_readable(void *dev, unsigned queue)
{
    struct net_pair *p = &((struct net *)dev)->pair[queue];

    if (receive_turn(p))
        host_bh_schedule(&p->work);
}

static void on_writable(void *dev, unsigned queue)
{
    struct net_pair *p = &((struct net *)dev)->pair[queue];

    if (transmit(p))
        host_bh_schedule(&p->work);
}

void net_pair_init(struct net_pair *p, struct net *n, unsigned index)
{
    p->net = n;
    p->index = index;
    host_bh_init(&p->work, work, p);
    n->backend->on_readable = on_readable;
    n->backend->on_writable = on_writable;
}
