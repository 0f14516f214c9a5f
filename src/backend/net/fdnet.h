/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Networks that are file descriptors which take and give one frame, virtio header first, a call: a
 * tap device's queues, or a socket (SOCK_SEQPACKET) to a helper process. What makes them differ is
 * their owner's: set-up, offloads, the end.
 */
#ifndef TRIVISOR_BACKEND_NET_FDNET_H
#define TRIVISOR_BACKEND_NET_FDNET_H

#include "backend/net/net.h"

struct fdnet;

struct fdnet_queue {
    struct fdnet *net;
    int fd;
    bool attached; /* the queue is in use */
    bool want_in, want_out;
    u32 events; /* what the loop watches; 0: it does not */
};

struct fdnet {
    struct netdev n; /* first */
    struct fdnet_queue queue[NET_QUEUES_MAX];
    bool socket;
    bool gone;
    /* The owner's. attach: queue q is (not) in use; may be NULL. */
    void (*set_offloads)(struct fdnet *f, u32 offloads);
    void (*attach)(struct fdnet *f, unsigned q, bool on);
    /* The other end is gone: once, on the event loop. May be NULL. */
    void (*ended)(struct fdnet *f);
    void (*close)(struct fdnet *f); /* closes the descriptors and frees *f */
};

/* Fills in f->n from its queues (n descriptors in queue[].fd, non-blocking) and f's functions. */
void fdnet_init(struct fdnet *f, unsigned n);

#endif
