/* SPDX-License-Identifier: Apache-2.0 */
/* The machine's networks, from --net and --publish. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "backend/net/net.h"
#include "board/pc_priv.h"
#include "dev/pci/pci.h"
#include "dev/virtio/net.h"

static bool is_user(const char *spec)
{
    return !strncmp(spec, "user", 4) && (!spec[4] || spec[4] == ',');
}

/* Published ports go with the first user network. */
static int open_net(struct pc *pc, const char *spec, bool *published)
{
    const struct config_list *ports = &pc->cfg->publish;
    struct net_request r = {.spec = spec, .index = pc->nnets};

    if (pc->nnets == PC_NETS_MAX) {
        snprintf(pc->err, pc->err_size, "--net: more than %d networks", PC_NETS_MAX);
        return -EINVAL;
    }
    if (is_user(spec) && !*published) {
        r.publish = ports->item;
        r.npublish = ports->n;
        *published = true;
    }
    pc->net[pc->nnets].dev = net_open(&r, pc->net[pc->nnets].mac, pc->err, pc->err_size);
    if (!pc->net[pc->nnets].dev)
        return -EINVAL;
    pc->net[pc->nnets++].text = spec;
    return 0;
}

/* The last of the list are those that were plugged when the machine was saved. */
static int open_plugged(struct pc *pc)
{
    const struct config_list *nets = &pc->cfg->net;
    int r = 0;

    for (unsigned i = pc->net_options; i < nets->n && !r; i++)
        r = pc_plug_restore_net(pc, pc_plug_nth(pc, PC_PLUG_NET, i - pc->net_options),
                                nets->item[i], pc->nnets + i - pc->net_options);
    return r;
}

int pc_open_nets(struct pc *pc)
{
    const struct config_list *nets = &pc->cfg->net;
    unsigned plugged = pc_plug_count(pc, PC_PLUG_NET);
    bool published = false;
    int r = 0;

    if (plugged > nets->n) {
        snprintf(pc->err, pc->err_size,
                 "--net: the saved machine had more networks than are given again");
        return -EINVAL;
    }
    pc->net_options = nets->n - plugged;
    for (unsigned i = 0; i < pc->net_options && !r; i++)
        if (strcmp(nets->item[i], "none"))
            r = open_net(pc, nets->item[i], &published);
    if (!r)
        r = open_plugged(pc);
    if (r || !pc->cfg->publish.n || published)
        return r;
    if (!nets->n)
        return open_net(pc, "user", &published);
    snprintf(pc->err, pc->err_size, "--publish: there is no user network (--net user)");
    return -EINVAL;
}

struct device *pc_create_net(struct pc *pc, struct netdev *net, const char *name, const u8 mac[6],
                             u8 devfn)
{
    struct virtio_net_config c = {.net = net, .name = name};

    memcpy(c.mac, mac, sizeof(c.mac));
    return virtio_net_create(&pc->vm, pc->pci, devfn, &c);
}

int pc_create_nets(struct pc *pc)
{
    for (unsigned i = 0; i < pc->nnets; i++) {
        const char *name = pc->net[i].name;

        snprintf(pc->net[i].name, sizeof(pc->net[i].name), "net%u", i);
        if (!pc_create_net(pc, pc->net[i].dev, name, pc->net[i].mac, PCI_DEVFN(pc->next_slot, 0))) {
            snprintf(pc->err, pc->err_size, "cannot create %s: no memory or no slot for it", name);
            return -ENOMEM;
        }
        pc->net[i].slot = pc->next_slot++;
    }
    return 0;
}

void pc_close_nets(struct pc *pc)
{
    for (unsigned i = 0; i < pc->nnets; i++)
        pc->net[i].dev->ops->close(pc->net[i].dev);
    pc->nnets = 0;
}
