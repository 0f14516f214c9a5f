/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All work is done on the event loop: a notification schedules it there. Queues are touched under
 * the VM lock, frames are moved without it, straight between guest memory and the network.
 */
#include "dev/virtio/net.h"

#include <string.h>

#include "dev/virtio/net_priv.h"

#define CLASS_ETHERNET 0x020000
#define LINK_UP 1

/* Configuration (5.1.4), as it lies in memory. */
struct net_config {
    u8 mac[6];
    u16 status;
    u16 max_virtqueue_pairs;
    u16 mtu;
};
_Static_assert(sizeof(struct net_config) == 12, "5.1.4");

static struct net *of(struct virtio_device *d)
{
    return container_of(d, struct net, virtio);
}

static u32 config_read(struct virtio_device *d, unsigned off, unsigned size)
{
    struct net *n = of(d);
    struct net_config c = {.status = n->link_up ? LINK_UP : 0,
                           .max_virtqueue_pairs = (u16)n->npairs,
                           .mtu = n->backend->mtu};
    u32 val = 0;

    memcpy(c.mac, n->mac, sizeof(c.mac));
    memcpy(&val, (const u8 *)&c + off, size);
    return val;
}

/* 5.1.3.1: what each feature cannot be without. */
static bool features_ok(struct virtio_device *d)
{
    static const struct {
        u64 feature, needs;
    } rule[] = {
        {NET_F_GUEST_TSO4 | NET_F_GUEST_TSO6 | NET_F_GUEST_UFO, NET_F_GUEST_CSUM},
        {NET_F_HOST_TSO4 | NET_F_HOST_TSO6 | NET_F_HOST_UFO, NET_F_CSUM},
        {NET_F_GUEST_ECN, NET_F_GUEST_TSO4 | NET_F_GUEST_TSO6},
        {NET_F_HOST_ECN, NET_F_HOST_TSO4 | NET_F_HOST_TSO6},
        {NET_F_CTRL_RX | NET_F_MQ | NET_F_CTRL_MAC_ADDR | NET_F_CTRL_GUEST_OFFLOADS, NET_F_CTRL_VQ},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(rule); i++)
        if (virtio_has(d, rule[i].feature) && !virtio_has(d, rule[i].needs))
            return false;
    of(d)->control_queue = 2 * net_pairs(of(d)); /* 5.1.2 */
    return true;
}

u32 net_guest_offloads(u64 features)
{
    u32 o = 0;

    o |= features & NET_F_GUEST_CSUM ? NETDEV_CSUM : 0;
    o |= features & NET_F_GUEST_TSO4 ? NETDEV_TSO4 : 0;
    o |= features & NET_F_GUEST_TSO6 ? NETDEV_TSO6 : 0;
    o |= features & NET_F_GUEST_ECN ? NETDEV_TSO_ECN : 0;
    o |= features & NET_F_GUEST_UFO ? NETDEV_UFO : 0;
    return o;
}

static void start(struct virtio_device *d)
{
    struct net *n = of(d);

    n->offloads = net_guest_offloads(d->features);
    n->pairs_used = 1;
    host_bh_schedule(&n->control);
}

static void notify(struct virtio_device *d, unsigned q)
{
    struct net *n = of(d);

    if (q == n->control_queue && virtio_has(d, NET_F_CTRL_VQ))
        host_bh_schedule(&n->control);
    else if (q / 2 < net_pairs(n) && q % 2)
        net_pair_notify_tx(&n->pair[q / 2]);
    else if (q / 2 < net_pairs(n))
        host_bh_schedule(&n->pair[q / 2].work);
}

static void reset_device(struct virtio_device *d)
{
    struct net *n = of(d);

    memcpy(n->mac, n->own_mac, sizeof(n->mac));
    n->offloads = 0;
    n->pairs_used = 1;
    for (unsigned i = 0; i < n->npairs; i++)
        net_pair_reset(&n->pair[i]);
    host_bh_schedule(&n->control);
}

static const struct virtio_ops virtio_net_ops = {.config_read = config_read,
                                                 .features_ok = features_ok,
                                                 .start = start,
                                                 .notify = notify,
                                                 .reset = reset_device};

/* Event loop. */
static void on_link(void *dev, bool up)
{
    struct net *n = dev;

    vm_lock(n->virtio.vm);
    n->link_up = up;
    virtio_config_changed(&n->virtio);
    vm_unlock(n->virtio.vm);
}

static void reset(struct device *d)
{
    virtio_pci_reset(&container_of(d, struct net, dev)->pci);
}

static void unplug(struct device *d)
{
    virtio_pci_unplug(&container_of(d, struct net, dev)->pci);
}

/* A vCPU's thread lets go of the lock while it sends; when it has it back it is soon out. */
static bool sending(struct net *n)
{
    bool busy = false;

    vm_lock(n->virtio.vm);
    for (unsigned i = 0; i < n->npairs; i++)
        busy |= n->pair[i].tx_busy;
    vm_unlock(n->virtio.vm);
    return busy;
}

static void destroy(struct device *d)
{
    struct net *n = container_of(d, struct net, dev);

    while (sending(n))
        host_yield();

    n->backend->on_readable = n->backend->on_writable = NULL;
    n->backend->on_link = NULL;
    host_bh_cancel(&n->control);
    for (unsigned i = 0; i < n->npairs; i++)
        host_bh_cancel(&n->pair[i].work);
    host_free(n);
}

static const struct device_ops device_ops = {.name = "virtio-net",
                                             .reset = reset,
                                             .drain = net_drain,
                                             .save = net_save,
                                             .load = net_load,
                                             .loaded = net_loaded,
                                             .unplug = unplug,
                                             .destroy = destroy};

/* What the network can take and give, in the device's words. */
static u64 offload_features(u32 o)
{
    u64 f = 0;

    if (!(o & NETDEV_CSUM))
        return 0;
    f |= NET_F_CSUM | NET_F_GUEST_CSUM | NET_F_CTRL_GUEST_OFFLOADS;
    f |= o & NETDEV_TSO4 ? NET_F_HOST_TSO4 | NET_F_GUEST_TSO4 : 0;
    f |= o & NETDEV_TSO6 ? NET_F_HOST_TSO6 | NET_F_GUEST_TSO6 : 0;
    f |= o & NETDEV_TSO_ECN ? NET_F_HOST_ECN | NET_F_GUEST_ECN : 0;
    f |= o & NETDEV_UFO ? NET_F_HOST_UFO | NET_F_GUEST_UFO : 0;
    return f;
}

struct device *virtio_net_create(struct vm *vm, struct device *pci_host, u8 devfn,
                                 const struct virtio_net_config *cfg)
{
    struct net *n = host_zalloc(sizeof(*n));
    struct netdev *b = cfg->net;
    struct virtio_device *d;

    if (!n)
        return NULL;
    d = &n->virtio;
    n->dev.ops = &device_ops;
    n->backend = b;
    memcpy(n->own_mac, cfg->mac, sizeof(n->own_mac));
    memcpy(n->mac, cfg->mac, sizeof(n->mac));
    n->link_up = true;
    n->npairs = b->queues < VIRTIO_NET_PAIRS_MAX ? b->queues : VIRTIO_NET_PAIRS_MAX;
    n->pairs_used = n->told_pairs = 1;
    virtio_init(d, vm, &virtio_net_ops, VIRTIO_ID_NET, cfg->name, sizeof(struct net_config));
    d->offered |= NET_F_MAC | NET_F_STATUS | NET_F_MRG_RXBUF | NET_F_CTRL_VQ | NET_F_CTRL_RX |
                  NET_F_CTRL_MAC_ADDR | offload_features(b->offloads);
    d->offered |= n->npairs > 1 ? NET_F_MQ : 0;
    d->offered |= b->mtu ? NET_F_MTU : 0;
    host_bh_init(&n->control, net_control_work, n);
    for (unsigned i = 0; i < n->npairs; i++) {
        net_pair_init(&n->pair[i], n, i);
        virtio_add_queue(d, NET_QUEUE_SIZE);
        virtio_add_queue(d, NET_QUEUE_SIZE);
    }
    virtio_add_queue(d, NET_CONTROL_SIZE);
    d->irqfds = true;
    b->dev = n;
    b->on_link = on_link;
    if (virtio_pci_init(&n->pci, d, pci_host, devfn, CLASS_ETHERNET)) {
        destroy(&n->dev);
        return NULL;
    }
    vm_add_device(vm, &n->dev);
    return &n->dev;
}
