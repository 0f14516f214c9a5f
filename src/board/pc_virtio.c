/* SPDX-License-Identifier: Apache-2.0 */
/* Small virtio devices: random numbers. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "board/pc_priv.h"
#include "dev/pci/pci.h"
#include "dev/virtio/rng.h"

/* d: the device that was put into the next slot, or NULL: that did not work. */
static int placed(struct pc *pc, const struct device *d, const char *name)
{
    if (!d) {
        snprintf(pc->err, pc->err_size, "cannot create %s: no memory or no slot for it", name);
        return -ENOMEM;
    }
    pc->next_slot++;
    return 0;
}

static int create_rng(struct pc *pc)
{
    if (strcmp(pc->cfg->rng, "on"))
        return 0;
    return placed(pc, virtio_rng_create(&pc->vm, pc->pci, PCI_DEVFN(pc->next_slot, 0), "rng0"),
                  "rng0");
}

int pc_create_virtio(struct pc *pc)
{
    return create_rng(pc);
}
