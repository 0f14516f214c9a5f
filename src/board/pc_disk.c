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
    u8 slot;
};

/* Queues when the user names no number: one a vCPU, as drivers use them. */
static unsigned queues_of(const struct pc *pc, const struct block_spec *spec)
{
    unsigned n = spec->queues ? spec->queues : (unsigned)pc->cfg->cpus;

    return n < VIRTIO_BLK_QUEUES_MAX ? n : VIRTIO_BLK_QUEUES_MAX;
}

/* The last of the list are those that were plugged when the machine was saved. */
static int open_plugged(struct pc *pc, unsigned first)
{
    const struct config_list *l = &pc->cfg->disk;
    int r = 0;

    for (unsigned i = first; i < l->n && !r; i++)
        r = pc_plug_restore_disk(pc, pc_plug_nth(pc, PC_PLUG_DISK, i - first), l->item[i]);
    return r;
}

int pc_open_disks(struct pc *pc)
{
    const struct config_list *l = &pc->cfg->disk;
    unsigned plugged = pc_plug_count(pc, PC_PLUG_DISK), n = l->n - plugged;

    if (plugged > l->n) {
        snprintf(pc->err, pc->err_size,
                 "-d: the saved machine had more disks than are given again");
        return -EINVAL;
    }
    if (!l->n)
        return 0;
    pc->disk = calloc(l->n, sizeof(*pc->disk));
    if (!pc->disk) {
        snprintf(pc->err, pc->err_size, "out of memory");
        return -ENOMEM;
    }
    for (; pc->ndisks < n; pc->ndisks++) {
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
    return open_plugged(pc, n);
}

static struct device *create(struct pc *pc, struct blockdev *disk, const char *name,
                             const struct block_spec *spec, u8 devfn)
{
    struct virtio_blk_config cfg = {.disk = disk,
                                    .name = name,
                                    .serial = spec->serial[0] ? spec->serial : spec->id,
                                    .queues = queues_of(pc, spec),
                                    .no_doorbell = spec->no_doorbell,
                                    .no_irqfd = spec->no_irqfd};

    return virtio_blk_create(&pc->vm, pc->pci, devfn, &cfg);
}

struct device *pc_create_disk(struct pc *pc, struct blockdev *disk, const char *name,
                              const char *text, u8 devfn)
{
    struct block_spec spec;
    char err[400];

    if (block_spec_parse(text, &spec, err, sizeof(err)))
        return NULL;
    return create(pc, disk, name, &spec, devfn);
}

int pc_create_disks(struct pc *pc)
{
    for (unsigned i = 0; i < pc->ndisks; i++) {
        struct pc_disk *d = &pc->disk[i];

        if (!create(pc, d->dev, d->name, &d->spec, PCI_DEVFN(pc->next_slot, 0))) {
            snprintf(pc->err, pc->err_size, "cannot create %s: no memory or no slot for it",
                     d->name);
            return -ENOMEM;
        }
        d->slot = pc->next_slot++;
    }
    return 0;
}

unsigned pc_disk_count(const struct pc *pc)
{
    return pc->ndisks + pc_plug_count(pc, PC_PLUG_DISK);
}

struct blockdev *pc_disk_dev(struct pc *pc, unsigned i)
{
    return i < pc->ndisks ? pc->disk[i].dev : pc_plug_nth(pc, PC_PLUG_DISK, i - pc->ndisks)->disk;
}

const char *pc_disk_text(const struct pc *pc, unsigned i, u8 *slot)
{
    *slot = pc->disk[i].slot;
    return pc->cfg->disk.item[i];
}

void pc_close_disks(struct pc *pc)
{
    for (unsigned i = 0; i < pc->ndisks; i++)
        pc->disk[i].dev->ops->close(pc->disk[i].dev);
    free(pc->disk);
    pc->disk = NULL;
    pc->ndisks = 0;
}
