/* SPDX-License-Identifier: Apache-2.0 */
/* Networks that need no privilege: a TCP/IP stack in a helper process. */
#ifndef TRIVISOR_BACKEND_NET_USER_H
#define TRIVISOR_BACKEND_NET_USER_H

#include "backend/net/net.h"
#include "backend/net/options.h"
#include "core/backend.h"

/* NULL with one line in err. */
struct netdev *net_user_open(const struct net_options *o, char *err, size_t err_size);
/* Starts the process for another machine's; with its descriptors. net.h has what these do. */
int net_user_start(const struct net_options *o, struct net_fds *f, char *err, size_t err_size);
struct netdev *net_user_adopt(const struct net_options *o, struct net_fds *f, char *err,
                              size_t err_size);

#endif
