/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of a share that the guest knows. A node is a file of the host, whatever its names are;
 * the guest names it by a number (nodeid), the host by a descriptor opened with O_PATH, which can
 * do nothing but stand for the file.
 *
 * A guest may know a million files, a process has some thousands of descriptors. Only the nodes
 * used last have theirs open; the others are opened again, by the directory and name they were last
 * seen under, and must be the same file still (device, inode, time of birth). A file that a
 * guest deletes while it knows it keeps its descriptor.
 *
 * Thread-safe. Numbers from the guest are taken as they come.
 */
#ifndef TRIVISOR_BACKEND_SHARE_INODE_H
#define TRIVISOR_BACKEND_SHARE_INODE_H

#include <sys/stat.h>

#include "base/types.h"

/* The share's directory. FUSE_ROOT_ID. */
#define NODE_ROOT 1

struct node;
struct node_table;

/* What tells one file from another. */
struct node_key {
    dev_t dev;
    ino_t ino;
    s64 born; /* ns; 0: the file system does not say */
};

struct node_limits {
    unsigned nodes; /* known at once; beyond: -ENFILE */
    unsigned fds;   /* open at once, at least 16 */
};

/* root: a descriptor of the directory, owned from then on. NULL: no memory, or -errno in *err. */
struct node_table *nodes_create(int root, const struct node_limits *limits, int *err);
void nodes_destroy(struct node_table *t);
/* Forgets everything but the root. No node is held. */
void nodes_clear(struct node_table *t);

/* Holds the node of that number, its descriptor open until node_put. NULL: *err is -ESTALE (not
 * known, or its file is gone), -ENFILE. */
struct node *node_get(struct node_table *t, u64 id, int *err);
void node_put(struct node_table *t, struct node *n);
/* Of a held node. */
int node_fd(const struct node *n);
u64 node_id(const struct node *n);
mode_t node_type(const struct node *n); /* S_IFMT part; a file's type never changes */

/*
 * Finds `name` in the directory `dir` (held) and counts one more reference by the guest: 0, its
 * number in *id and its attributes in *st; or -errno. name is a checked component; a symbolic link
 * is a file like others here.
 */
int node_lookup(struct node_table *t, struct node *dir, const char *name, u64 *id, struct stat *st);
/* The guest drops n of its references. */
void node_forget(struct node_table *t, u64 id, u64 n);

/* Holds the node, if the guest knows one, that `name` in `dir` is now. Its descriptor is open, and
 * stays when `keep`: its name is about to go. */
struct node *node_named(struct node_table *t, struct node *dir, const char *name, bool keep);
/* The held node n is called `name` in `dir` from now on. */
void node_renamed(struct node_table *t, struct node *n, struct node *dir, const char *name);

/* Attributes as the guest opened the file last; true when they are *st's and the file was not in
 * the middle of being changed: what the guest has cached is still what the file holds. Remembers
 * *st. */
bool node_unchanged(struct node_table *t, struct node *n, const struct stat *st);

/* For tests: nodes known (the root counts), descriptors open. */
void nodes_count(struct node_table *t, unsigned *nodes, unsigned *fds);

/* Attributes of an O_PATH descriptor's file, and its key. 0 or -errno. */
int node_stat(int fd, struct stat *st, struct node_key *key);

#endif
