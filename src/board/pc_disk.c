/* SPDX-License-Identifier: Apache-2.0 */
/* Disks: the images behind them, and their devices. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/block/block.h"
#include "board/pc_priv.h"
#include "dev/pci/pci.h"
#include "dev/virtio/blk.h"

struct pc_disk {
    struct block_spec spec;
    struct blockdev *dev;
    char name[8];
};

/* Queues when the user names no number: one a vCPU, as drivers use them. */
static unsigned queues_of(const struct pc *pc, const struct block_spec *spec)
{
    unsigned n = spec->queues ? spec->queues : (unsigned)pc->cfg->cpus;

    return n < VIRTIO_BLK_QUEUES_MAX ? n : VIRTIO_BLK_QUEUES_MAX;
}

int pc_open_disks(struct pc *pc)
{
    const struct config_list *l = &pc->cfg->disk;

    if (!l->n)
        return 0;
    pc->disk = calloc(l->n, sizeof(*pc->disk));
    if (!pc->disk) {
        snprintf(pc->err, pc->err_size, "out of memory");
        return -ENOMEM;
    }
    for (; pc->ndisks < l->n; pc->ndisks++) {
        struct pc_disk *d = &pc->disk[pc->ndisks];
        char err[400];

        snprintf(d->name, sizeof(d->name), "disk%u", pc->ndisks & 0xff);
        if (!block_spec_parse(l->item[pc->ndisks], &d->spec, err, sizeof(err)))
            d->dev = block_open(&d->spec, err, sizeof(err));
        if (!d->dev) {
            snprintf(pc->err, pc->err_size, "-d: %s", err);
            return -EINVAL;
        }
    }
    return 0;
}

int pc_create_disks(struct pc *pc)
{
    for (unsigned i = 0; i < pc->ndisks; i++) {
        struct pc_disk *d = &pc->disk[i];
        struct virtio_blk_config cfg = {.disk = d->dev,
                                        .name = d->name,
                                        .serial = d->spec.serial[0] ? d->spec.serial : d->spec.id,
                                        .queues = queues_of(pc, &d->spec),
                                        .no_doorbell = d->spec.no_doorbell};

        if (!virtio_blk_create(&pc->vm, pc->pci, PCI_DEVFN(pc->next_slot, 0), &cfg)) {
            snprintf(pc->err, pc->err_size, "cannot create %s: no memory or no slot for it",
                     d->name);
            return -ENOMEM;
        }
        pc->next_slot++;
    }
    return 0;
}

struct blockdev *pc_disk_dev(struct pc *pc, unsigned i)
{
    return pc->disk[i].dev;
}

void pc_close_disks(struct pc *pc)
{
    for (unsigned i = 0; i < pc->ndisks; i++)
        pc->disk[i].dev->ops->close(pc->disk[i].dev);
    free(pc->disk);
    pc->disk = NULL;
    pc->ndisks = 0;
}
