/* SPDX-License-Identifier: Apache-2.0 */
#include "board/plug.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/block/block.h"

_Static_assert(PLUG_FDS_MAX == BLOCK_CHAIN_MAX, "");

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

int plug_open(const struct config *cfg, struct plug_parts *p, char *err, size_t err_size)
{
    int r;

    *p = (struct plug_parts){.nfds = 0};
    if (!cfg->disk.n) {
        snprintf(err, err_size, "networks cannot be plugged in this version");
        return -ENOSYS;
    }
    r = open_disk(cfg->disk.item[0], p, err, err_size);
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
