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

struct net_request {
    const char *spec;           /* user[,...], tap=IF[,...] */
    const char *const *publish; /* ports of the host that lead to the guest: user only */
    unsigned npublish;
    unsigned index; /* of the network in this machine: addresses differ by it */
};

/* Opens the network; mac: the guest's address there. NULL with one line in err. */
struct netdev *net_open(const struct net_request *r, u8 mac[6], char *err, size_t err_size);

#endif
