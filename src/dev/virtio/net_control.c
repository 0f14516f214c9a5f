/* SPDX-License-Identifier: Apache-2.0 */
/* The control queue (virtio 1.2 5.1.6.5). */
#include <string.h>

#include "dev/virtio/net_priv.h"

enum { CLASS_RX = 0, CLASS_MAC = 1, CLASS_MQ = 4, CLASS_GUEST_OFFLOADS = 5 };
enum { RX_COMMANDS = 6 };
enum { MAC_TABLE_SET = 0, MAC_ADDR_SET = 1 };
enum { MQ_VQ_PAIRS_SET = 0 };
enum { GUEST_OFFLOADS_SET = 0 };
enum { OK = 0, ERR = 1 };

#define CONTROL_PIECES (NET_CONTROL_SIZE + 2)
#define COMMANDS 64 /* a turn */

struct command {
    u8 class, command;
};

/* Two tables of a count and addresses. We filter nothing: a device may always let more through
 * (5.1.6.5.1), so the addresses do not matter. */
static bool mac_tables_ok(const struct virtq_chain *c, size_t off)
{
    for (unsigned i = 0; i < 2; i++) {
        u32 n;

        if (iov_read(c->iov, c->nout, off, &n, sizeof(n)) != sizeof(n))
            return false;
        off += sizeof(n) + 6ull * n;
        if (off > c->out_len)
            return false;
    }
    return true;
}

static u8 set_mac(struct net *n, const struct virtq_chain *c, size_t off)
{
    u8 mac[6];

    if (iov_read(c->iov, c->nout, off, mac, sizeof(mac)) != sizeof(mac) || (mac[0] & 1))
        return ERR;
    memcpy(n->mac, mac, sizeof(mac));
    return OK;
}

static u8 set_pairs(struct net *n, const struct virtq_chain *c, size_t off)
{
    u16 pairs;

    if (iov_read(c->iov, c->nout, off, &pairs, sizeof(pairs)) != sizeof(pairs) || !pairs ||
        pairs > n->npairs)
        return ERR;
    n->pairs_used = pairs;
    return OK;
}

static u8 set_offloads(struct net *n, const struct virtq_chain *c, size_t off)
{
    u64 offloads;

    if (iov_read(c->iov, c->nout, off, &offloads, sizeof(offloads)) != sizeof(offloads) ||
        (offloads & ~(n->virtio.features & NET_F_GUEST_ALL)))
        return ERR;
    n->offloads = net_guest_offloads(offloads);
    return OK;
}

static u8 execute(struct net *n, const struct virtq_chain *c)
{
    const struct virtio_device *d = &n->virtio;
    struct command cmd;
    size_t off = sizeof(cmd);

    if (iov_read(c->iov, c->nout, 0, &cmd, sizeof(cmd)) != sizeof(cmd))
        return ERR;
    switch (cmd.class) {
    case CLASS_RX:
        return cmd.command < RX_COMMANDS && virtio_has(d, NET_F_CTRL_RX) ? OK : ERR;
    case CLASS_MAC:
        if (cmd.command == MAC_TABLE_SET && virtio_has(d, NET_F_CTRL_RX))
            return mac_tables_ok(c, off) ? OK : ERR;
        if (cmd.command == MAC_ADDR_SET && virtio_has(d, NET_F_CTRL_MAC_ADDR))
            return set_mac(n, c, off);
        return ERR;
    case CLASS_MQ:
        return cmd.command == MQ_VQ_PAIRS_SET && virtio_has(d, NET_F_MQ) ? set_pairs(n, c, off)
                                                                         : ERR;
    case CLASS_GUEST_OFFLOADS:
        return cmd.command == GUEST_OFFLOADS_SET && virtio_has(d, NET_F_CTRL_GUEST_OFFLOADS)
                   ? set_offloads(n, c, off)
                   : ERR;
    default:
        return ERR;
    }
}

/* Tells the network what the driver wants. VM lock held, but not while it does. */
static void tell(struct net *n)
{
    struct netdev *b = n->backend;
    u32 offloads = n->offloads;
    unsigned pairs = n->pairs_used;

    if (offloads == n->told_offloads && pairs == n->told_pairs)
        return;
    vm_unlock(n->virtio.vm);
    if (offloads != n->told_offloads)
        b->ops->set_offloads(b, offloads);
    if (pairs != n->told_pairs)
        b->ops->set_queues(b, pairs);
    n->told_offloads = offloads;
    n->told_pairs = pairs;
    vm_lock(n->virtio.vm);
}

/* One command; false: there is none. The network knows before the driver gets its answer. */
static bool command(struct net *n)
{
    struct virtio_device *d = &n->virtio;
    struct host_iov iov[CONTROL_PIECES];
    struct virtq_chain c = {.iov = iov, .cap = CONTROL_PIECES};
    u8 ack;

    if (!virtq_pop(d, n->control_queue, &c))
        return false;
    if (!c.in_len) {
        virtio_broken(d, "a command without room for its answer");
        virtq_drop(d, n->control_queue, &c);
        return false;
    }
    ack = execute(n, &c);
    tell(n);
    iov_write(iov + c.nout, c.nin, 0, &ack, sizeof(ack));
    virtq_push(d, n->control_queue, &c, sizeof(ack));
    return true;
}

void net_control_work(void *net)
{
    struct net *n = net;
    unsigned done = 0;

    vm_lock(n->virtio.vm);
    tell(n);
    if (virtio_has(&n->virtio, NET_F_CTRL_VQ)) {
        while (done < COMMANDS && command(n))
            done++;
        virtq_signal(&n->virtio, n->control_queue);
    }
    vm_unlock(n->virtio.vm);
    if (done == COMMANDS)
        host_bh_schedule(&n->control);
}
