/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saving and loading. Frames on their way are not part of the state: what the network has not taken
 * stays in the transmit queue, and a received one that waits for buffers is lost to those who go on
 * from it, as frames are at times.
 */
#include <errno.h>
#include <string.h>

#include "dev/virtio/net_priv.h"

#define STATE_VERSION 1

static struct net *net_of(struct device *dev)
{
    return container_of(dev, struct net, dev);
}

void net_drain(struct device *dev)
{
    struct net *n = net_of(dev);

    vm_lock(n->virtio.vm);
    for (unsigned i = 0; i < n->npairs; i++)
        net_pair_rest(&n->pair[i]);
    vm_unlock(n->virtio.vm);
}

int net_save(const struct device *dev, struct stream *out, const char **why)
{
    const struct net *n = container_of(dev, struct net, dev);

    stream_put_u16(out, STATE_VERSION);
    stream_put(out, n->mac, sizeof(n->mac));
    stream_put_u8(out, n->link_up);
    stream_put_u16(out, n->backend->mtu);
    stream_put_u32(out, n->offloads);
    stream_put_u8(out, (u8)n->pairs_used);
    return virtio_pci_save(&n->pci, out, why);
}

int net_load(struct device *dev, struct stream *in)
{
    struct net *n = net_of(dev);
    const struct virtio_device *d = &n->virtio;
    u8 mac[6], link_up, pairs;
    u32 offloads;
    u16 mtu;

    if (stream_get_u16(in) != STATE_VERSION)
        return -EINVAL;
    stream_get(in, mac, sizeof(mac));
    link_up = stream_get_u8(in);
    mtu = stream_get_u16(in);
    offloads = stream_get_u32(in);
    pairs = stream_get_u8(in);
    if (link_up > 1 || (mac[0] & 1) || virtio_pci_load(&n->pci, in))
        return -EINVAL;
    /* A guest that was told of a limit keeps to it. */
    if ((virtio_has(d, NET_F_MTU) && mtu != n->backend->mtu) ||
        (offloads & ~net_guest_offloads(d->features)) || !pairs || pairs > net_pairs(n)) {
        virtio_set_status(&n->virtio, 0);
        return -EINVAL;
    }
    memcpy(n->mac, mac, sizeof(mac));
    n->link_moved = link_up != n->link_up;
    n->offloads = offloads;
    n->pairs_used = pairs;
    return 0;
}

/* The network is told first what the driver wants of it. */
void net_loaded(struct device *dev)
{
    struct net *n = net_of(dev);

    if (n->link_moved)
        virtio_config_changed(&n->virtio);
    n->link_moved = false;
    host_bh_schedule(&n->control);
    for (unsigned i = 0; i < n->npairs; i++)
        host_bh_schedule(&n->pair[i].work);
}
