/* SPDX-License-Identifier: Apache-2.0 */
/* Field-by-field state streams: little endian, bounded, with a sticky error. */
#ifndef TRIVISOR_CORE_STREAM_H
#define TRIVISOR_CORE_STREAM_H

#include "base/types.h"

struct stream {
    u8 *buf;
    size_t cap, pos;
    int error; /* 0, or the first -errno: -ENOSPC writing, -EINVAL reading beyond the end */
};

void stream_init(struct stream *s, void *buf, size_t cap);
void stream_put(struct stream *s, const void *p, size_t n);
void stream_get(struct stream *s, void *p, size_t n); /* zeroes *p on error */
void stream_put_u8(struct stream *s, u8 v);
void stream_put_u16(struct stream *s, u16 v);
void stream_put_u32(struct stream *s, u32 v);
void stream_put_u64(struct stream *s, u64 v);
u8 stream_get_u8(struct stream *s);
u16 stream_get_u16(struct stream *s);
u32 stream_get_u32(struct stream *s);
u64 stream_get_u64(struct stream *s);
/* A byte that must be 0 or 1; false and -EINVAL otherwise. */
bool stream_get_bool(struct stream *s);
/* What was read must be so: -EINVAL from here on if not. */
void stream_expect(struct stream *s, bool ok);

#endif
