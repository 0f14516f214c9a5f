/* SPDX-License-Identifier: Apache-2.0 */
/* Shared directories: their servers, which come first of all, and their devices. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "backend/share/share.h"
#include "board/pc_priv.h"
#include "dev/pci/pci.h"
#include "dev/virtio/fs.h"

int pc_open_shares(struct pc *pc)
{
    const struct config_list *l = &pc->cfg->share;
    bool confined = strcmp(pc->cfg->sandbox, "off") != 0;

    for (unsigned i = 0; i < l->n; i++) {
        pc->share[i] = share_open(l->item[i], confined, pc->err, pc->err_size);
        if (!pc->share[i])
            return -EINVAL;
        for (unsigned j = 0; j < i; j++)
            if (!strcmp(pc->share[j]->tag, pc->share[i]->tag)) {
                snprintf(pc->err, pc->err_size, "-v: two directories are called %s",
                         pc->share[i]->tag);
                return -EINVAL;
            }
    }
    return 0;
}

void pc_close_shares(struct pc *pc)
{
    for (unsigned i = 0; i < CONFIG_LIST_MAX; i++) {
        if (pc->share[i])
            pc->share[i]->ops->close(pc->share[i]);
        pc->share[i] = NULL;
    }
}

int pc_create_shares(struct pc *pc)
{
    for (unsigned i = 0; i < pc->cfg->share.n; i++) {
        struct sharedev *share = pc->share[i];

        snprintf(pc->share_name[i], sizeof(pc->share_name[i]), "fs%u", i);
        pc->share[i] = NULL; /* the device's now */
        if (!virtio_fs_create(&pc->vm, pc->pci, PCI_DEVFN(pc->next_slot, 0), pc->share_name[i],
                              share)) {
            snprintf(pc->err, pc->err_size, "cannot create %s: no memory or no slot for it",
                     pc->share_name[i]);
            return -ENOMEM;
        }
        pc->next_slot++;
    }
    return 0;
}
