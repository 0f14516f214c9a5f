/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last bytes of an endless stream, for any number of readers. Every byte has a position that
 * never changes; a reader keeps the position it has come to. Memory is bounded: old bytes go.
 */
#ifndef TRIVISOR_BACKEND_CHAR_REPLAY_H
#define TRIVISOR_BACKEND_CHAR_REPLAY_H

#include "core/host.h"

struct replay {
    u8 *ring;
    u64 size; /* bytes kept at most */
    u64 end;  /* position behind the newest byte */
};

/* 0 or -ENOMEM. */
int replay_init(struct replay *r, u64 size);
void replay_free(struct replay *r);

void replay_add(struct replay *r, const u8 *buf, size_t n);

/* The oldest position still kept. */
u64 replay_start(const struct replay *r);
/* Where a person begins to read: replay_start, or behind the first line end when older bytes are
 * gone, so that nothing begins in the middle of a line. */
u64 replay_first_line(const struct replay *r);

/* What follows position pos (replay_start <= pos <= end), at most max bytes, as up to two pieces in
 * place. Returns the bytes in them. */
size_t replay_peek(const struct replay *r, u64 pos, size_t max, struct host_iov iov[2],
                   unsigned *n_iov);

#endif
