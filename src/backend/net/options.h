/* SPDX-License-Identifier: Apache-2.0 */
/* The text of --net and --publish, taken apart. */
#ifndef TRIVISOR_BACKEND_NET_OPTIONS_H
#define TRIVISOR_BACKEND_NET_OPTIONS_H

#include <net/if.h>
#include <netinet/in.h>

#include "base/types.h"

enum net_kind { NET_USER, NET_TAP };

/* A port of the host that leads to the guest. */
struct net_publish {
    char text[80]; /* as it was written */
    bool udp;
    struct in_addr addr; /* of the host; 0.0.0.0: all */
    u16 host_port, guest_port;
};

#define NET_PUBLISH_MAX 24

struct net_options {
    enum net_kind kind;
    bool has_mac;
    u8 mac[6];
    u16 mtu; /* 0: not given */
    /* user */
    bool restricted;
    struct in_addr net, mask, host, dns, guest; /* in network order */
    char hostname[64];
    struct net_publish publish[NET_PUBLISH_MAX];
    unsigned npublish;
    /* tap */
    char ifname[IFNAMSIZ];
    unsigned queues;
};

/* 0, or -EINVAL with one line in err. */
int net_parse(struct net_options *o, const char *spec, char *err, size_t err_size);
/* Adds [udp:][HOSTADDR:]HOSTPORT:GUESTPORT. */
int net_parse_publish(struct net_options *o, const char *text, char *err, size_t err_size);

#endif
