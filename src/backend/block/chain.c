/* SPDX-License-Identifier: Apache-2.0 */
/* Opening the files of a disk for another process, and taking them over there. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "backend/block/image.h"

int block_chain_open(const struct block_spec *spec, struct block_chain *c, char *err,
                     size_t err_size)
{
    struct image_how how[IMAGE_CHAIN_MAX + 1] = {{.readonly = spec->readonly}};
    struct block_file f[IMAGE_CHAIN_MAX];
    enum block_format format = spec->format;
    char path[BLOCK_PATH_MAX], next[BLOCK_PATH_MAX];
    int r = 1;

    c->n = 0;
    snprintf(path, sizeof(path), "%s", spec->path);
    while (r > 0) {
        unsigned n = c->n;

        r = image_open_file(&f[n < IMAGE_CHAIN_MAX ? n : 0], path, &format, &how[n], err, err_size);
        if (r)
            break;
        c->fd[c->n++] = f[n].fd;
        how[n + 1] =
            (struct image_how){.readonly = true, .overlay = &how[n], .depth = how[n].depth + 1};
        if (format == BLOCK_FORMAT_QCOW2)
            r = qcow2_backing(&f[n], next, sizeof(next), &format, err, err_size);
        memcpy(path, next, sizeof(path));
    }
    /* The descriptors alone are kept. */
    for (unsigned i = 0; i < c->n; i++) {
        f[i].fd = -1;
        block_file_close(&f[i]);
    }
    if (r)
        block_chain_close(c);
    return r;
}

void block_chain_close(struct block_chain *c)
{
    while (c->n)
        if (c->fd[--c->n] >= 0)
            close(c->fd[c->n]);
}

struct blockdev *block_adopt(const struct block_spec *spec, struct block_chain *c, char *err,
                             size_t err_size)
{
    struct image_how how = {.readonly = spec->readonly,
                            .unsafe = spec->unsafe,
                            .no_discard = spec->no_discard,
                            .given = c};
    struct blockdev *b = image_open(spec->path, spec->format, &how, err, err_size);

    for (unsigned i = 0; i < c->n && b; i++)
        if (c->fd[i] >= 0) {
            b->ops->close(b);
            snprintf(err, err_size, "disk %s: more descriptors came than it has files", spec->path);
            return NULL;
        }
    return b;
}
