/* SPDX-License-Identifier: Apache-2.0 */
/* The file server behind a share: what its operations work on. */
#ifndef TRIVISOR_BACKEND_SHARE_SHARE_PRIV_H
#define TRIVISOR_BACKEND_SHARE_SHARE_PRIV_H

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>

#include "backend/share/handle.h"
#include "backend/share/inode.h"
#include "base/types.h"

/* How long the guest may believe attributes and names without asking, in seconds: what the host
 * changes meanwhile is seen that late. */
#define SHARE_TIMEOUT 1.0

/* Room for the data of one reply, SHAREDEV_DATA_MAX bytes: one of each thread that serves. */
extern __thread char *share_buffer;

struct share_server {
    struct node_table *nodes;
    struct handle_table *handles;
    bool readonly;
    /* New files are given to the guest's user who made them; otherwise they are the process's
     * user's. */
    bool chown_new;
};

/* The operations, a file each. */
void share_name_ops(struct fuse_lowlevel_ops *ops);
void share_file_ops(struct fuse_lowlevel_ops *ops);
void share_dir_ops(struct fuse_lowlevel_ops *ops);
void share_attr_ops(struct fuse_lowlevel_ops *ops);

static inline struct share_server *server_of(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

/* Answers a request with the outcome of a call: 0 or -errno. */
static inline void reply_status(fuse_req_t req, int err)
{
    fuse_reply_err(req, -err);
}

/* "/proc/self/fd/N": the file of an O_PATH descriptor, for calls that take only paths. The kernel
 * goes to the file itself; no name is looked up. */
#define FD_PATH_SIZE 32
const char *fd_path(int fd, char *buf);

/* What a guest may give as permissions: nothing that lends the process's identity to whoever runs
 * the file on the host. */
mode_t safe_mode(mode_t mode, mode_t type);

/* Looks `name` up and answers with the entry. */
void reply_entry(fuse_req_t req, struct node *dir, const char *name);
/* What of a guest's open flags is for the host. */
int open_flags(int flags);
/* Opens a regular file that the guest knows, with flags of the guest's. A descriptor or -errno. */
int open_node(struct node *n, int flags);

#endif
