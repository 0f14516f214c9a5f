/* SPDX-License-Identifier: Apache-2.0 */
#include "board/plug.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/block/block.h"
#include "backend/net/net.h"

_Static_assert(PLUG_FDS_MAX == BLOCK_CHAIN_MAX && PLUG_FDS_MAX >= NET_QUEUES_MAX, "");

static int open_disk(const char *text, struct plug_parts *p, char *err, size_t err_size)
{
    char *cwd = getcwd(NULL, 0);
    struct block_chain chain;
    struct block_spec spec;
    int r;

    p->member = "disk";
    p->value = block_spec_from(text, cwd ? cwd : "");
    free(cwd);
    if (!p->value) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    r = block_spec_parse(p->value, &spec, err, err_size);
    if (!r)
        r = block_chain_open(&spec, &chain, err, err_size);
    if (r)
        return r;
    memcpy(p->fd, chain.fd, chain.n * sizeof(chain.fd[0]));
    p->nfds = chain.n;
    return 0;
}

/* The network's options, and with it its ports. NULL: out of memory. */
static char *with_ports(const struct config *cfg)
{
    const struct config_list *ports = &cfg->publish;
    size_t size = strlen(cfg->net.item[0]) + 1, n;
    char *text;

    for (unsigned i = 0; i < ports->n; i++)
        size += strlen(",publish=") + strlen(ports->item[i]);
    text = malloc(size);
    if (!text)
        return NULL;
    n = (size_t)snprintf(text, size, "%s", cfg->net.item[0]);
    for (unsigned i = 0; i < ports->n; i++)
        n += (size_t)snprintf(text + n, size - n, ",publish=%s", ports->item[i]);
    return text;
}

static int open_net(const struct config *cfg, struct plug_parts *p, char *err, size_t err_size)
{
    char *spec = with_ports(cfg);
    struct net_fds f;
    int r = -ENOMEM;

    p->member = "net";
    p->value = malloc(NET_SPEC_MAX);
    if (spec && p->value)
        r = net_start(spec, p->value, &f, err, err_size);
    else
        snprintf(err, err_size, "out of memory");
    free(spec);
    if (r)
        return r;
    memcpy(p->fd, f.fd, f.n * sizeof(f.fd[0]));
    p->nfds = f.n;
    return 0;
}

int plug_open(const struct config *cfg, struct plug_parts *p, char *err, size_t err_size)
{
    int r;

    *p = (struct plug_parts){.nfds = 0};
    r = cfg->disk.n ? open_disk(cfg->disk.item[0], p, err, err_size)
                    : open_net(cfg, p, err, err_size);
    if (r)
        plug_close(p);
    return r;
}

void plug_close(struct plug_parts *p)
{
    while (p->nfds)
        close(p->fd[--p->nfds]);
    free(p->value);
    p->value = NULL;
}
