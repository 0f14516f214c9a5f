/* SPDX-License-Identifier: Apache-2.0 */
/* What of the host's is overwritten, made or listened at for a machine. */
#include <string.h>

#include "board/pc_priv.h"
#include "core/listen.h"

static bool is_socket(const char *where)
{
    return where && !strncmp(where, "unix:", 5);
}

int pc_watch_sockets(struct pc *pc)
{
    const struct config *cfg = pc->cfg;
    bool any = cfg->vsock || is_socket(cfg->serial) || is_socket(cfg->virtio_console) ||
               is_socket(cfg->gdb);

    for (unsigned i = 0; i < cfg->port.n; i++)
        any |= is_socket(strchr(cfg->port.item[i], '=') + 1);
    return any ? host_listen_cleaner(strcmp(cfg->sandbox, "off") != 0, pc->err, pc->err_size) : 0;
}

static int start(struct pc *pc, struct chardev *c)
{
    return c && c->start ? c->start(c, pc->cfg->check, pc->err, pc->err_size) : 0;
}

int pc_start_outputs(struct pc *pc)
{
    int r = start(pc, pc->console);

    if (!r)
        r = start(pc, pc->hvc);
    for (unsigned i = 0; i < pc->nports && !r; i++)
        r = start(pc, pc->port[i]);
    if (!r && pc->vsock)
        r = pc->vsock->ops->start(pc->vsock, pc->cfg->check, pc->err, pc->err_size);
    if (!r)
        host_listen_done();
    return r;
}
