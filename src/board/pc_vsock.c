/* SPDX-License-Identifier: Apache-2.0 */
/* The machine's socket device, from --vsock. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "backend/vsock/vsock.h"
#include "board/pc_priv.h"
#include "dev/pci/pci.h"
#include "dev/virtio/vsock.h"

int pc_open_vsock(struct pc *pc)
{
    bool confined = strcmp(pc->cfg->sandbox, "off") != 0;

    if (!pc->cfg->vsock)
        return 0;
    pc->vsock = vsock_open(pc->cfg->vsock, confined, pc->err, pc->err_size);
    return pc->vsock ? 0 : -EINVAL;
}

int pc_create_vsock(struct pc *pc)
{
    if (!pc->vsock)
        return 0;
    if (!virtio_vsock_create(&pc->vm, pc->pci, PCI_DEVFN(pc->next_slot, 0), "vsock0", pc->vsock)) {
        snprintf(pc->err, pc->err_size, "cannot create vsock0: no memory or no slot for it");
        return -ENOMEM;
    }
    pc->next_slot++;
    return 0;
}

void pc_close_vsock(struct pc *pc)
{
    if (pc->vsock)
        pc->vsock->ops->close(pc->vsock);
    pc->vsock = NULL;
}
