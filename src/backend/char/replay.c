/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "backend/char/replay.h"
#include "core/host.h"

int replay_init(struct replay *r, u64 size)
{
    memset(r, 0, sizeof(*r));
    r->ring = host_zalloc(size);
    r->size = size;
    return r->ring ? 0 : -ENOMEM;
}

void replay_free(struct replay *r)
{
    if (r->ring)
        host_free(r->ring);
    r->ring = NULL;
}

void replay_add(struct replay *r, const u8 *buf, size_t n)
{
    if (n > r->size) {
        r->end += n - r->size;
        buf += n - r->size;
        n = r->size;
    }
    while (n) {
        u64 at = r->end % r->size;
        size_t piece = r->size - at < n ? (size_t)(r->size - at) : n;

        memcpy(r->ring + at, buf, piece);
        r->end += piece;
        buf += piece;
        n -= piece;
    }
}

u64 replay_start(const struct replay *r)
{
    return r->end > r->size ? r->end - r->size : 0;
}

u64 replay_first_line(const struct replay *r)
{
    u64 start = replay_start(r);

    if (!start)
        return 0;
    for (u64 at = start; at < r->end; at++)
        if (r->ring[at % r->size] == '\n')
            return at + 1;
    return start;
}

size_t replay_peek(const struct replay *r, u64 pos, size_t max, struct host_iov iov[2],
                   unsigned *n_iov)
{
    u64 left = r->end - pos;
    size_t total = left < max ? (size_t)left : max;

    *n_iov = 0;
    for (size_t n = total; n;) {
        u64 at = pos % r->size;
        size_t piece = r->size - at < n ? (size_t)(r->size - at) : n;

        iov[(*n_iov)++] = (struct host_iov){r->ring + at, piece};
        pos += piece;
        n -= piece;
    }
    return total;
}
