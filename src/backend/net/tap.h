/* SPDX-License-Identifier: Apache-2.0 */
/* A network interface of the host's whose other end is the guest's. */
#ifndef TRIVISOR_BACKEND_NET_TAP_H
#define TRIVISOR_BACKEND_NET_TAP_H

#include "backend/net/net.h"
#include "backend/net/options.h"
#include "core/backend.h"

/* Opens the tap device o->ifname, or makes it. NULL with one line in err. */
struct netdev *net_tap_open(const struct net_options *o, char *err, size_t err_size);
/* For another process's machine: net.h has what these do. */
int net_tap_start(const struct net_options *o, struct net_fds *f, char *err, size_t err_size);
struct netdev *net_tap_adopt(const struct net_options *o, struct net_fds *f, char *err,
                             size_t err_size);

#endif
