/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buffered output to a descriptor that never blocks a vCPU: bytes are gathered for a moment, then
 * written as far as the descriptor takes them; what does not fit the buffer is dropped and counted.
 */
#ifndef TRIVISOR_BACKEND_CHAR_OUTPUT_H
#define TRIVISOR_BACKEND_CHAR_OUTPUT_H

#include "core/clock.h"

#define OUTPUT_SIZE (1u << 20)

struct output {
    struct vm *vm;
    int fd;
    struct vtimer timer;
    size_t head, len; /* ring: first byte, number of bytes */
    u64 dropped;
    bool waiting; /* watched for EPOLLOUT */
    bool dead;    /* the other end is gone */
    u8 *ring;
};

/* 0 or -ENOMEM. */
int output_init(struct output *o, struct vm *vm, int fd);
/* Takes up to n bytes; returns how many. VM lock held. */
size_t output_write(struct output *o, const u8 *buf, size_t n);
/* Writes what is left, waiting at most about two seconds for a slow reader. */
void output_finish(struct output *o);

#endif
