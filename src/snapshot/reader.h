/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a saved machine. The file is not trusted: what is wrong with it ends in one line. */
#ifndef TRIVISOR_SNAPSHOT_READER_H
#define TRIVISOR_SNAPSHOT_READER_H

#include "core/host.h"
#include "core/stream.h"

struct snapshot;

/* Opens it and reads all but the memory, whose checksums are looked at later. NULL with one line in
 * err. */
struct snapshot *snapshot_open(const char *path, char *err, size_t err_size);
void snapshot_close(struct snapshot *s); /* NULL: nothing */

u64 snapshot_ram_size(const struct snapshot *s);

/* Its descriptor, which stays its own. */
int snapshot_fd(const struct snapshot *s);
/* Whether fd is of the same file, under whatever name. */
bool snapshot_is_file(const struct snapshot *s, int fd);

/* The bytes of a section, in *in. false: there is none. They belong to s. */
bool snapshot_section(struct snapshot *s, const char *name, u32 instance, struct stream *in);
/* The name of a section nobody has asked for, and its instance. NULL: there is none left. */
const char *snapshot_unused(const struct snapshot *s, u32 *instance);

/*
 * Makes *ram, which is of snapshot_ram_size and zero, the saved memory. What is not compressed is
 * mapped and read when the guest comes to it; the file must not change as long as the machine runs.
 * 0, or -errno with one line in err.
 */
int snapshot_map(struct snapshot *s, struct host_ram *ram, char *err, size_t err_size);

/*
 * Compares the memory's checksums, of `least` bytes and further ones until budget_ns have gone by;
 * more calls go on where the last one stopped. 1: all is well and nothing is left (of compressed
 * memory, snapshot_map does it); 0: there is more; -errno with one line in err. Any thread, one at
 * a time.
 */
int snapshot_verify(struct snapshot *s, u64 budget_ns, u64 least, char *err, size_t err_size);
/* Whether nothing is left for it. */
bool snapshot_verified(const struct snapshot *s);

#endif
