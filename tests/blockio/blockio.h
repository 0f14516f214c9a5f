/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of blockio, which drives the disk back ends from the command line. */
#ifndef TRIVISOR_TESTS_BLOCKIO_H
#define TRIVISOR_TESTS_BLOCKIO_H

#include "backend/block/block.h"

/* One line on stderr and the end. */
_Noreturn void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Each takes the words behind the command and returns the exit status. */
int cmd_bench(struct blockdev *b, int argc, char **argv);
int cmd_script(struct blockdev *b);
int cmd_crash_write(struct blockdev *b, int argc, char **argv);
int cmd_crash_check(struct blockdev *b, int argc, char **argv);
int cmd_fill(struct blockdev *b, int argc, char **argv);

#endif
