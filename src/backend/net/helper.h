/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process behind a user-mode network: libslirp, which is a TCP/IP stack towards the guest and
 * plain sockets towards the host. Frames come and go on a socket (SOCK_SEQPACKET), one a message,
 * header first; a message of the size of struct net_control is one. It ends when the other end of
 * the socket does.
 */
#ifndef TRIVISOR_BACKEND_NET_HELPER_H
#define TRIVISOR_BACKEND_NET_HELPER_H

#include "backend/net/options.h"

/* To the helper: what the guest takes from now on (NETDEV_*). */
struct net_control {
    u32 offloads;
};

/* The helper's first message: empty text (one NUL) when it serves, or what is wrong. */
#define NET_HELPER_HELLO 256

/* Runs it; with the child's end of the socket. Its exit status. */
int net_helper_main(const struct net_options *o, int fd);

/* Gives up all rights but the ones this process needs from now on (confine.c). 0, or -errno with
 * one line in err. */
int net_helper_confine(char *err, size_t err_size);

#endif
