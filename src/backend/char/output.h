/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buffered output to a descriptor that never blocks a vCPU: bytes are gathered for a moment, then
 * written as far as the descriptor takes them; what does not fit the buffer stays with a device
 * that can wait, or is dropped and counted.
 */
#ifndef TRIVISOR_BACKEND_CHAR_OUTPUT_H
#define TRIVISOR_BACKEND_CHAR_OUTPUT_H

#include "core/backend.h"
#include "core/clock.h"

#define OUTPUT_SIZE (1u << 20)

struct output {
    struct vm *vm;
    int fd;
    struct vtimer timer;
    size_t head, len; /* ring: first byte, number of bytes */
    u64 dropped;
    struct chardev *owner; /* whose output it is; NULL: nobody to tell that there is room */
    bool waiting;          /* watched for EPOLLOUT */
    bool dead;             /* the other end is gone */
    bool lost;             /* dead, and not because the reader chose to go: output is missing */
    bool wanted;           /* somebody waits for room */
    bool ending;           /* somebody waits until everything is written */
    /* May be NULL: half of the buffer is free again after output_try gave no more room; or, with
     * ending, it is empty; or the other end is gone. VM lock held. */
    void (*on_room)(void *opaque);
    void *opaque;
    u8 *ring;
};

/* 0 or -ENOMEM. owner: the chardev o is part of. fd: -1: output_start gives it, and what is written
 * until then waits. */
int output_init(struct output *o, struct vm *vm, int fd, struct chardev *owner);
void output_start(struct output *o, int fd);
/* Takes up to n bytes; returns how many. VM lock held. */
size_t output_write(struct output *o, const u8 *buf, size_t n);
/* The same, but what is not taken is not lost: it is offered again after on_room. */
size_t output_try(struct output *o, const u8 *buf, size_t n);
/* Writes what is left, waiting at most about two seconds for a slow reader. */
void output_finish(struct output *o);

#endif
