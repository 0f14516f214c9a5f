/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Networks: what the options --net and --publish make.
 *
 * To be called early: before guest memory and threads exist, for user-mode networks run in a child
 * process that would inherit them.
 */
#ifndef TRIVISOR_BACKEND_NET_NET_H
#define TRIVISOR_BACKEND_NET_NET_H

#include "core/backend.h"

#define NET_QUEUES_MAX 8
#define NET_SPEC_MAX 512 /* with its NUL */

struct net_request {
    const char *spec;           /* user[,...], tap=IF[,...] */
    const char *const *publish; /* ports of the host that lead to the guest: user only */
    unsigned npublish;
    unsigned index; /* of the network in this machine: addresses differ by it */
};

/* Opens the network; mac: the guest's address there. NULL with one line in err. */
struct netdev *net_open(const struct net_request *r, u8 mac[6], char *err, size_t err_size);

/* --- a network that one process opens and another one, which is confined, uses --- */

/* Descriptors: a tap device's queues; of a user network, the socket to the process behind it and
 * the pipe that process's messages come by. -1: none. */
struct net_fds {
    int fd[NET_QUEUES_MAX];
    unsigned n;
};

/*
 * Opens what net_open would; the process behind a user network ends with the last copy of its
 * socket. full: spec with all it takes to find nothing out any more, such as the guest's address on
 * a tap. 0, or -errno with one line in err and nothing to close.
 */
int net_start(const char *spec, char full[NET_SPEC_MAX], struct net_fds *f, char *err,
              size_t err_size);
void net_close(struct net_fds *f);

/* Adds the option mac= to a network's options. How many characters it takes, as snprintf. */
size_t net_add_mac(char spec[NET_SPEC_MAX], const u8 mac[6]);

/* As net_open, with what net_start has opened; those it takes over, or closes, are -1 afterwards.
 * On the event loop. */
struct netdev *net_adopt(const struct net_request *r, struct net_fds *f, u8 mac[6], char *err,
                         size_t err_size);

#endif
