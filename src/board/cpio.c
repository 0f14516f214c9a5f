/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "board/cpio.h"

#define HEADER_SIZE 110
#define TRAILER "TRAILER!!!"

static void put(struct cpio *c, const void *data, u64 n)
{
    u64 padded = align_up(c->size + n, 4);

    if (padded > c->room) {
        u64 room = padded + (padded >> 1) + 1024;
        u8 *more = realloc(c->data, room);

        if (!more) {
            c->failed = true;
            return;
        }
        c->data = more;
        c->room = room;
    }
    if (n)
        memcpy(c->data + c->size, data, n);
    c->size += n;
}

static void pad(struct cpio *c)
{
    static const u8 zero[4];

    put(c, zero, align_up(c->size, 4) - c->size);
}

void cpio_add(struct cpio *c, const char *name, u32 mode, const void *data, u64 size)
{
    u32 name_size = (u32)strlen(name) + 1;
    char header[HEADER_SIZE + 1];

    if (size > UINT32_MAX) {
        c->failed = true;
        return;
    }
    /* ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check */
    snprintf(header, sizeof(header), "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
             ++c->entries, mode, 0u, 0u, 1u, 0u, (u32)size, 0u, 0u, 0u, 0u, name_size, 0u);
    put(c, header, HEADER_SIZE);
    put(c, name, name_size);
    pad(c);
    put(c, data, size);
    pad(c);
}

int cpio_finish(struct cpio *c)
{
    cpio_add(c, TRAILER, 0, NULL, 0);
    return c->failed ? -ENOMEM : 0;
}

void cpio_free(struct cpio *c)
{
    free(c->data);
    *c = (struct cpio){0};
}
