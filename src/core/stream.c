/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "core/stream.h"

void stream_init(struct stream *s, void *buf, size_t cap)
{
    *s = (struct stream){.buf = buf, .cap = cap};
}

void stream_put(struct stream *s, const void *p, size_t n)
{
    if (s->error)
        return;
    if (n > s->cap - s->pos) {
        s->error = -ENOSPC;
        return;
    }
    memcpy(s->buf + s->pos, p, n);
    s->pos += n;
}

void stream_get(struct stream *s, void *p, size_t n)
{
    if (!s->error && n > s->cap - s->pos)
        s->error = -EINVAL;
    if (s->error) {
        memset(p, 0, n);
        return;
    }
    memcpy(p, s->buf + s->pos, n);
    s->pos += n;
}

static void put_le(struct stream *s, u64 v, unsigned n)
{
    u8 b[8];
    for (unsigned i = 0; i < n; i++)
        b[i] = (u8)(v >> (8 * i));
    stream_put(s, b, n);
}

static u64 get_le(struct stream *s, unsigned n)
{
    u8 b[8];
    u64 v = 0;
    stream_get(s, b, n);
    for (unsigned i = 0; i < n; i++)
        v |= (u64)b[i] << (8 * i);
    return v;
}

void stream_put_u8(struct stream *s, u8 v)
{
    put_le(s, v, 1);
}

void stream_put_u16(struct stream *s, u16 v)
{
    put_le(s, v, 2);
}

void stream_put_u32(struct stream *s, u32 v)
{
    put_le(s, v, 4);
}

void stream_put_u64(struct stream *s, u64 v)
{
    put_le(s, v, 8);
}

u8 stream_get_u8(struct stream *s)
{
    return (u8)get_le(s, 1);
}

u16 stream_get_u16(struct stream *s)
{
    return (u16)get_le(s, 2);
}

u32 stream_get_u32(struct stream *s)
{
    return (u32)get_le(s, 4);
}

u64 stream_get_u64(struct stream *s)
{
    return get_le(s, 8);
}

bool stream_get_bool(struct stream *s)
{
    u8 v = stream_get_u8(s);

    stream_expect(s, v <= 1);
    return v == 1;
}

void stream_expect(struct stream *s, bool ok)
{
    if (!ok && !s->error)
        s->error = -EINVAL;
}
